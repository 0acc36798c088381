#!/usr/bin/env python3
"""What the program says of itself agrees: each option of --help stands in the manual page and in the completion, manual pages are
valid troff, and the command lines shown in README.md, doc/ and the examples use commands and options that exist. Needs $CISTERN."""
import glob
import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CISTERN = os.environ.get("CISTERN", os.path.join(TOP, "build/release/src/cli/cistern"))


def output(*arguments, program=CISTERN, text=None):
    done = subprocess.run([program, *arguments], capture_output=True, text=True, input=text, timeout=60)
    return done.returncode, done.stdout + done.stderr


def commands():
    status, text = output("help")
    assert status == 0, text
    return re.findall(r"^  (\w+) {2,}", text, re.M)


def options_of(command):
    """Long options of --help, and the spellings beside them."""
    _, text = output(command, "--help")
    main = set(re.findall(r"^  (?:-\w, )*--([\w-]+)", text, re.M))
    _, man = output("help", "--man", command)
    also = set(main) | {"help"}
    for names in re.findall(r"Also: ([^.]*)\.", man.replace("\\-", "-")):
        also |= {name.split(" ")[0].replace("_", "-") for name in names.split(", ")}
    also |= {name for name in re.findall(r"^\.B (?:-\w, )*--([\w-]+)", man.replace("\\-", "-"), re.M)}
    return main, also


def check_command(command, problems):
    main, _ = options_of(command)
    status, man = output("help", "--man", command)
    if status != 0:
        problems.append(f"help --man {command} fails")
    plain = man.replace("\\-", "-")
    for shell in ("bash", "zsh"):
        _, script = output("completion", shell)
        words = re.search(rf"^\t{command}\) (.*);;$", script, re.M)
        for option in main:
            if not words or not re.search(rf"--{re.escape(option)}\b", words.group(1)):
                problems.append(f"{command}: --{option} is not completed by {shell}")
    for option in main:
        if not re.search(rf"--{re.escape(option)}\b", plain):
            problems.append(f"{command}: --{option} is not in the manual page")
    status, words = output("-T", "lint", "-W", "warning", program="mandoc", text=man)
    # A page without a date is meant: it would change with every build.
    serious = [line for line in words.splitlines() if "missing date" not in line and "WARNING" in line or "ERROR" in line]
    problems += [f"cistern-{command}.1: {line}" for line in serious]


def shown_lines():
    """Command lines that begin with cistern, in code blocks and code spans of the documents."""
    pages = [os.path.join(TOP, "README.md"), os.path.join(TOP, "CONTRIBUTING.md"), *sorted(glob.glob(os.path.join(TOP, "doc/*.md")))]
    for page in pages:
        with open(page, encoding="utf-8") as file:
            text = file.read()
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)
        blocks += re.findall(r"^(?:    |\t).*$", text, re.M)
        blocks += re.findall(r"`([^`\n]+)`", text)
        for block in blocks:
            for line in block.replace("\\\n", " ").splitlines():
                match = re.match(r"\s*(?:\$ )?(?:\./build/\S*/)?cistern ([a-z]\w*)(.*)$", line.split(" #")[0])
                if match:
                    yield os.path.relpath(page, TOP), match.group(1), match.group(2)


def check_shown(problems, names):
    known = {name: options_of(name)[1] for name in names}
    lines = 0
    for page, command, rest in shown_lines():
        lines += 1
        if command not in known:
            problems.append(f"{page}: there is no command cistern {command}")
            continue
        for option in re.findall(r"(?<![\w-])--([a-z][\w-]*)", rest):
            if option.replace("_", "-") not in known[command]:
                problems.append(f"{page}: cistern {command} has no option --{option}")
        for group in re.findall(r" -o ?([\w=,./:-]+)", rest):
            for option in group.split(","):
                if option.split("=")[0].replace("_", "-") not in known[command]:
                    problems.append(f"{page}: cistern {command} has no option -o {option}")
    if lines < 5:
        problems.append(f"only {lines} command lines were found in the documents")


def main():
    problems = []
    names = commands()
    if len(names) < 7:
        problems.append(f"only {len(names)} commands are listed by help")
    for name in names:
        check_command(name, problems)
    script = output("completion", "bash")[1]
    status, words = output("-n", program="bash", text=script)
    if status != 0:
        problems.append(f"the bash completion is not valid: {words}")
    check_shown(problems, names)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
