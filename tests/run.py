#!/usr/bin/env python3
"""Builds Cistern and runs its tests: scripts/test.sh calls this after installing what they need.

Sets: lint (tests/lint), unit (tests/unit, TAP), fuzz-replay (tests/fuzz over its corpus), integration (tests/integration/*.sh on the
release build); then the unit tests and the integration tests marked "# sanitize" under ASan and under TSan. --long adds the tests
marked "# long", the fuzzers for a minute each, and the fuzz corpora's coverage.

Marks stand in the first lines of an integration test: "# sanitize" ("# sanitize long": in the long set), "# long", "# timeout: SECONDS", "# alone" (not
beside others: it counts on the machine's whole speed or looks at what belongs to all).
The last line of the output is "N passed, N failed"; the exit status is 0 when nothing failed.
"""
import argparse
import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
INTEGRATION = os.path.join(TOP, "tests", "integration")
CORES = os.cpu_count() or 2
# Most tests wait most of the time: for a store, a disk, another process.
UNIT_JOBS = 2 * CORES
INTEGRATION_JOBS = CORES + 1
FUZZ_SECONDS = 60
COVERAGE_WANTED = 90.0  # per cent of a parser's lines

# Under TSan in the long set alone: what has one thread, and the longest of what other tests show in parts.
TSAN_LONG = {"stage/crash", "stage/model", "stage/plan", "object/write_store", "publish/store"}

SANITIZERS = {
    "asan": ("address", {"ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1", "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}),
    "tsan": ("thread", {"TSAN_OPTIONS": f"halt_on_error=1:second_deadlock_stack=1:suppressions={TOP}/tests/tsan.supp"}),
}


class Tally:
    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.skipped = []

    def add(self, name, ok, passed, failed, output, seconds, reason=""):
        self.passed += passed
        self.failed += failed
        mark = "ok  " if ok else "FAIL"
        print(f"{mark} {name} ({passed} passed{f', {failed} failed' if failed else ''}, {seconds:.1f} s){' ' + reason if reason else ''}")
        if ok:  # results for people, such as a table
            for line in re.findall(r"^#\| (.*)", output, re.M):
                print(f"     {line}")
        if not ok:
            for line in output.splitlines()[-120:]:
                print(f"     {line}")
        sys.stdout.flush()

    def skip(self, name, reason):
        self.skipped.append((name, reason))
        print(f"skip {name}: {reason}")
        sys.stdout.flush()


def run(command, timeout, env=None, cwd=TOP):
    """Runs a program in a session of its own, with its output in a file; (status or None when out of time, output, seconds)."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=cwd,
                                   env={**os.environ, **(env or {})}, start_new_session=True)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = None
            # TERM first: a test unmounts and ends what it started.
            for number, wait in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
                try:
                    os.killpg(process.pid, number)
                    process.wait(wait)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue
                break
        out.seek(0)
        text = out.read().decode("utf-8", "replace")
    return status, text, time.monotonic() - started


def tap_counts(output):
    passed = len(re.findall(r"^ok\b", output, re.M))
    failed = len(re.findall(r"^not ok\b", output, re.M))
    return passed, failed


def judge(tally, name, result, needs_tap=False):
    status, output, seconds = result
    passed, failed = tap_counts(output)
    if status == 77 and failed == 0:
        reason = re.findall(r"# skipped: (.*)", output)
        tally.skip(name, reason[-1] if reason else "no reason given")
        return
    reason = ""
    if status is None:
        reason = "out of time"
    elif status < 0:
        reason = f"ended by {signal.Signals(-status).name}"
    elif status != 0 and failed == 0:
        reason = f"exit status {status}"
    elif needs_tap and passed + failed == 0:
        reason = "no test ran"
    if reason and failed == 0:
        failed = 1
    if status == 0 and passed + failed == 0:
        passed = 1
    tally.add(name, failed == 0, passed, failed, output, seconds, reason)


def build(tally, name, arguments, env=None, targets=()):
    directory = os.path.join(TOP, "build", name)
    started = time.monotonic()
    if not os.path.exists(os.path.join(directory, "build.ninja")):
        status, output, _ = run(["meson", "setup", directory, TOP, *arguments], 300, env)
        if status != 0:
            tally.add(f"build {name}", False, 0, 1, output, time.monotonic() - started, "meson setup")
            return None
    status, output, _ = run(["ninja", "-C", directory, *targets], 1800)
    ok = status == 0
    tally.add(f"build {name}", ok, 1 if ok else 0, 0 if ok else 1, output, time.monotonic() - started)
    return directory if ok else None


def meson_tests(directory, suite):
    listed = subprocess.run(["meson", "introspect", "--tests", directory], capture_output=True, text=True, check=True)
    return [test for test in json.loads(listed.stdout) if any(s.split(":")[-1] == suite for s in test["suite"])]


def run_meson_suite(tally, directory, suite, label, env, jobs, prefix=(), left_out=()):
    tests = sorted((test for test in meson_tests(directory, suite) if test["name"] not in left_out), key=lambda test: test["name"])
    if not tests:
        tally.add(f"{label}{suite}", False, 0, 1, "", 0, "no tests found")
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        def one(test):
            return test, run([*prefix, *test["cmd"]], test["timeout"] * (4 if label else 1), {**test["env"], **env})
        for test, result in pool.map(one, tests):
            judge(tally, f"{label}{test['name']}", result, needs_tap=suite == "unit")


def lint(tally):
    folder = os.path.join(TOP, "tests", "lint")
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.endswith((".py", ".sh")) and os.access(path, os.X_OK):
            judge(tally, f"lint/{name}", run([path], 300, {"CISTERN": os.path.join(TOP, "build/release/src/cli/cistern")}))


def marks(path):
    with open(path, encoding="utf-8") as file:
        head = [next(file, "") for _ in range(30)]
    text = "".join(head)
    timeout = re.search(r"^# timeout: (\d+)$", text, re.M)
    sanitize = re.search(r"^# sanitize( long)?$", text, re.M)
    return {
        "sanitize": sanitize and ("long" if sanitize[1] else "short"),
        "long": re.search(r"^# long$", text, re.M) is not None,
        "alone": re.search(r"^# alone$", text, re.M) is not None,
        "timeout": int(timeout.group(1)) if timeout else 120,
    }


def integration_scripts():
    return [name for name in sorted(os.listdir(INTEGRATION)) if name.endswith(".sh") and name != "lib.sh" and not name.startswith(".")]


def integration(tally, directory, long, label="", env=None, prefix=()):
    wanted = {"CISTERN": os.path.join(directory, "src/cli/cistern"), "CISTERN_BUILD": directory, "CISTERN_TEST_STRICT": "1", **(env or {})}
    chosen = {name: marks(os.path.join(INTEGRATION, name)) for name in integration_scripts()}
    chosen = {name: mark for name, mark in chosen.items()
              if (long or not mark["long"]) and (not label or mark["sanitize"] in (("short", "long") if long else ("short",)))}

    def one(name):
        return name, run([*prefix, "bash", os.path.join(INTEGRATION, name)], chosen[name]["timeout"] * (3 if label else 1), wanted)

    for jobs, alone in (INTEGRATION_JOBS, False), (1, True):
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for name, result in pool.map(one, [name for name, mark in chosen.items() if mark["alone"] == alone]):
                judge(tally, f"{label}integration/{name}", result)


def sanitized(tally, name, long):
    option, env = SANITIZERS[name]
    directory = build(tally, name, [f"-Dsanitize={option}", "-Dbuildtype=debugoptimized", "-Db_lundef=false"])
    if not directory:
        return
    label = f"{name}/"
    # gcc 12's TSan does not know the addresses that newer kernels place things at; the setting is inherited.
    prefix = ["setarch", "-R"] if name == "tsan" and run(["setarch", "-R", "true"], 10)[0] == 0 else []
    run_meson_suite(tally, directory, "unit", label, env, UNIT_JOBS, prefix, TSAN_LONG if name == "tsan" and not long else ())
    integration(tally, directory, long, label, {**env, "CISTERN_SANITIZED": name}, prefix)


def fuzz_names():
    folder = os.path.join(TOP, "tests", "fuzz")
    return sorted(name[5:-2] for name in os.listdir(folder) if name.startswith("fuzz_") and name.endswith(".c"))


def fuzz_programs():
    return [f"tests/fuzz/fuzz_{name}" for name in fuzz_names()]


def fuzz(tally):
    """Each fuzzer for a minute, from a copy of its corpus: what it finds new is not kept, a crash is printed."""
    directory = build(tally, "fuzz", ["-Dfuzz=true", "-Dsanitize=address"], {"CC": "clang"}, fuzz_programs())
    if not directory:
        return

    def one(name):
        with tempfile.TemporaryDirectory() as scratch:
            corpus = os.path.join(TOP, "tests", "fuzz", "corpus", name)
            return run([os.path.join(directory, "tests/fuzz", f"fuzz_{name}"), f"-max_total_time={FUZZ_SECONDS}", "-timeout=10",
                        "-rss_limit_mb=1024", f"-artifact_prefix={scratch}/", "-verbosity=0", "-print_final_stats=1", scratch, corpus],
                       FUZZ_SECONDS * 3)

    with concurrent.futures.ThreadPoolExecutor(CORES) as pool:
        names = fuzz_names()
        for name, result in zip(names, pool.map(one, names)):
            judge(tally, f"fuzz/{name}", result)


def covered_sources():
    """Which fuzzers' corpora must reach the lines of a file, or of some of its functions: fuzz_NAME.c says "Covers: src/x/y.c src/x/z.c(read_it, check_it) …".
    {source: ([name], {function})}"""
    sources = {}
    for name in fuzz_names():
        with open(os.path.join(TOP, "tests", "fuzz", f"fuzz_{name}.c"), encoding="utf-8") as file:
            text = re.sub(r"\n \*", "\n", file.read())
        found = re.search(r"Covers:((?:\s+src/\S+\.c(?:\([^)]*\))?)+)", text)
        for source, functions in re.findall(r"(src/\S+?\.c)(?:\(([^)]*)\))?", found.group(1)) if found else []:
            names, wanted = sources.setdefault(source, ([], set()))
            names.append(name)
            wanted.update(re.findall(r"\w+", functions))
    return sources


def lines_reached(function):
    """Lines of a function's code and those of them that ran; the innermost region of a line decides."""
    lines = {}
    for first, _, last, _, count, _, _, kind in function["regions"]:
        for line in range(first, last + 1) if kind == 0 else ():
            if line not in lines or first >= lines[line][0]:
                lines[line] = first, count
    return len(lines), sum(count > 0 for _, count in lines.values())


def coverage(tally):
    directory = build(tally, "coverage", ["-Dcoverage_map=true"], {"CC": "clang"}, fuzz_programs())
    if not directory:
        return
    program = lambda name: os.path.join(directory, "tests/fuzz", f"fuzz_{name}")
    with tempfile.TemporaryDirectory() as scratch:
        for name in fuzz_names():
            run([program(name), os.path.join(TOP, "tests/fuzz/corpus", name)], 120, {"LLVM_PROFILE_FILE": os.path.join(scratch, name)})
        for source, (names, wanted) in sorted(covered_sources().items()):
            started = time.monotonic()
            merged = os.path.join(scratch, "merged")
            run(["llvm-profdata", "merge", "-o", merged, *[os.path.join(scratch, name) for name in names]], 60)
            objects = [argument for name in names[1:] for argument in ("-object", program(name))]
            _, output, _ = run(["llvm-cov", "export", program(names[0]), *objects, f"-instr-profile={merged}"], 60)
            found = {}  # a function stands there once for each program
            for function in json.loads(output)["data"][0]["functions"]:
                short = function["name"].split(":")[-1]
                if os.path.normpath(function["filenames"][0]).endswith(source) and (not wanted or short in wanted):
                    found[short] = max(found.get(short, (0, 0)), lines_reached(function), key=lambda lines: lines[1])
            total, reached = (sum(lines[i] for lines in found.values()) for i in (0, 1))
            percent = reached / total * 100 if total else 0.0
            missing = wanted - set(found)
            ok = percent >= COVERAGE_WANTED and not missing
            least = "\n".join(f"{name}: {got} of {all_lines} lines" for name, (all_lines, got) in sorted(found.items()))
            tally.add(f"coverage/{source}", ok, int(ok), int(not ok), least, time.monotonic() - started,
                      f"{percent:.1f} % of the lines" + (f"; no function {', '.join(sorted(missing))}" if missing else ""))


def main():
    options = argparse.ArgumentParser(description="Runs the tests.")
    options.add_argument("--long", action="store_true", help="the long set too")
    options.add_argument("--only", choices=["lint", "unit", "fuzz-replay", "integration", "asan", "tsan", "fuzz", "coverage"], action="append",
                         help="only this set (may be repeated)")
    chosen = options.parse_args()
    only = set(chosen.only or ["lint", "unit", "fuzz-replay", "integration", "asan", "tsan"] + (["fuzz", "coverage"] if chosen.long else []))
    tally = Tally()
    started = time.monotonic()
    if only & {"lint", "unit", "fuzz-replay", "integration"}:
        release = build(tally, "release", ["-Dbuildtype=release"])
        if release:
            if "lint" in only:
                lint(tally)
            for suite in ("unit", "fuzz-replay"):
                if suite in only:
                    run_meson_suite(tally, release, suite, "", {}, UNIT_JOBS)
            if "integration" in only:
                integration(tally, release, chosen.long)
    for name in SANITIZERS:
        if name in only:
            sanitized(tally, name, chosen.long)
    if "fuzz" in only:
        fuzz(tally)
    if "coverage" in only:
        coverage(tally)
    for name, reason in tally.skipped:
        print(f"skipped: {name}: {reason}")
    print(f"time: {time.monotonic() - started:.0f} s")
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
