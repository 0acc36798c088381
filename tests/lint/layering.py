#!/usr/bin/env python3
"""A file of src/ may include its own folder and the folders above it in the order of src/meson.build; tests may include all.

Also: no cycle can hide in private headers, since a name with "private" or "internal" stays in its folder."""
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SRC = os.path.join(TOP, "src")


def layers():
    with open(os.path.join(SRC, "meson.build"), encoding="utf-8") as file:
        listed = re.search(r"foreach layer : \[([^\]]*)\]", file.read())
    return re.findall(r"'(\w+)'", listed.group(1))


def check(order, folder, path):
    problems = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            include = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not include:
                continue
            name = include.group(1)
            where = f"{os.path.relpath(path, TOP)}:{number}"
            target = name.split("/")[0]
            if "/" not in name or target not in order:
                problems.append(f'{where}: write #include "FOLDER/{os.path.basename(name)}"')
            elif order.index(target) > order.index(folder):
                problems.append(f"{where}: {folder} may not use {target}, which lies below it")
            elif target != folder and re.search(r"private|internal", os.path.basename(name)):
                problems.append(f"{where}: {name} is private to {target}")
            elif not os.path.exists(os.path.join(SRC, name)):
                problems.append(f"{where}: there is no src/{name}")
    return problems


def main():
    order = layers()
    problems = [f"src/{name}: not in the order of src/meson.build" for name in sorted(os.listdir(SRC))
                if os.path.isdir(os.path.join(SRC, name)) and name not in order]
    files = 0
    for folder in order:
        for parent, _, names in os.walk(os.path.join(SRC, folder)):
            for name in sorted(names):
                if name.endswith((".c", ".h", ".def")):
                    files += 1
                    problems += check(order, folder, os.path.join(parent, name))
    for problem in problems:
        print(problem)
    if files < 50:
        print(f"only {files} files were looked at")
        return 1
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
