#!/usr/bin/env python3
"""doc/where-is-what.md names places as `path:function`, `path` or `path:"text"`: each must exist, and the table must know every
operation of the object interface, every FUSE request that is handled and every command."""
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(TOP, "doc", "where-is-what.md")
PLACE = re.compile(r'`((?:src|tests|scripts|doc|bench)/[\w./-]+)(?::(?:"([^"`]+)"|(\w+)))?`')


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def problem_of(path, text, symbol):
    full = os.path.join(TOP, path)
    if not os.path.exists(full):
        return "there is no such file"
    if os.path.isdir(full):
        return "name a file, not a folder" if text or symbol else None
    content = read(full)
    if text and text not in content:
        return f'the text "{text}" is not in it'
    # A definition: the name at the start of a declarator, in a table row, or as a macro.
    if symbol and not re.search(rf"^(?:[\w*\s]+[\s*])?{symbol}\s*[\(\[={{]|^#define\s+{symbol}\b|\b(?:OPTION|NO_EFFECT|REFUSE)\({symbol}\b|^struct {symbol}\b|^enum {symbol}\b",
                                content, re.M):
        return f"{symbol} is not defined in it"
    return None


def mentioned(page, names, what):
    return [f"{what} {name} is not on the page" for name in names if not re.search(rf"\b{re.escape(name)}\b", page)]


def main():
    page = read(PAGE)
    problems = []
    places = PLACE.findall(page)
    for path, text, symbol in places:
        problem = problem_of(path, text, symbol)
        if problem:
            problems.append(f"{path}: {problem}")
    commands = re.findall(r"&cst_command_(\w+)", read(os.path.join(TOP, "src/cli/cli.c")))
    problems += mentioned(page, sorted(set(commands)), "the command")
    operations = re.findall(r"\b(cst_object_(?:head|get|list|get_symlink))\(", read(os.path.join(TOP, "src/object/object.h")))
    problems += mentioned(page, sorted(set(operations)), "the operation")
    requests = set(re.findall(r"case CST_KFUSE_([A-Z]+):", read(os.path.join(TOP, "src/fuse/dispatch.c"))))
    problems += mentioned(page, sorted(requests), "the request")
    for problem in problems:
        print(problem)
    if len(places) < 30:
        print(f"only {len(places)} places were found")
        return 1
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
