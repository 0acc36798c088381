"""What the benchmarks share: a store and a mount of their own, the peers' mounts, their CPU time and memory, a machine in a known
state, and tables of what was seen beside what is wanted."""
import argparse
import contextlib
import json
import mmap
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

TICK = os.sysconf("SC_CLK_TCK")


def touch_memory(size):
    """Touches and frees memory: a virtual machine that has given free pages back to its host otherwise pays for them in the run."""
    area = mmap.mmap(-1, size)
    for at in range(0, size, 4096):
        area[at] = 1
    area.close()


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def peak_rss_mib(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024


def make_file(path, size):
    """Bytes that differ everywhere, so that a wrong offset can't go unseen; made once."""
    if os.path.exists(path) and os.path.getsize(path) == size:
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        key = subprocess.Popen(["openssl", "enc", "-aes-128-ctr", "-K", "0" * 32, "-iv", "0" * 32, "-nosalt", "-in", "/dev/zero"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        left = size
        while left:
            piece = key.stdout.read(min(left, 1 << 20))
            f.write(piece)
            left -= len(piece)
        key.kill()
        key.wait()


def make_files(directory, count, size):
    """Small files, cut from one large one; made once. Their names."""
    names = [f"{i:06d}.bin" for i in range(count)]
    os.makedirs(directory, exist_ok=True)
    if len(os.listdir(directory)) != count:
        source = directory.rstrip("/") + ".source"
        make_file(source, size + count * 512)
        with open(source, "rb") as f:
            data = f.read()
        os.unlink(source)
        for i, name in enumerate(names):
            with open(os.path.join(directory, name), "wb") as f:
                f.write(data[i * 512:i * 512 + size])
    return names


@contextlib.contextmanager
def store(cistern, directory, *options):
    process = subprocess.Popen([cistern, "store", directory, "--listen", "127.0.0.1:0", "--anonymous", *options],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        endpoint = None
        for line in process.stdout:
            at = line.find("http://")
            if at >= 0:
                endpoint = line[at:].split()[0].rstrip(".,;/")
                break
        if not endpoint:
            raise RuntimeError("the store did not start")
        yield endpoint, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def stats(endpoint):
    with urllib.request.urlopen(endpoint + "/-/stats", timeout=10) as answer:
        return json.load(answer)


def reset_stats(endpoint):
    urllib.request.urlopen(urllib.request.Request(endpoint + "/-/stats/reset", method="POST"), timeout=10).read()


def serving_pid(pid):
    """The process that serves a mount; `pid` is the one that keeps it."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return int(f.read().split()[0])


@contextlib.contextmanager
def mount(cistern, url, directory, endpoint, *options):
    os.makedirs(directory, exist_ok=True)
    process = subprocess.Popen([cistern, "mount", url, directory, "--endpoint", endpoint, "--anonymous", "-f", *options],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(400):
            if process.poll() is not None:
                raise RuntimeError(f"cistern mount ended with status {process.returncode}")
            if os.path.ismount(directory):
                break
            time.sleep(0.025)
        yield serving_pid(process.pid)
    finally:
        subprocess.run([cistern, "umount", directory], check=False, timeout=30, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            subprocess.run(["umount", "-l", directory], check=False)
            process.kill()
            process.wait()


# ---- arguments ----

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STORES = {"a": [], "b": ["--latency", "20ms", "--bandwidth", "90MiB"]}  # the two stores that the targets speak of


def parser(doc, runs=3):
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default=os.path.join(HERE, "build"), help="build directory, with src/cli/cistern and bench/reader in it")
    p.add_argument("--cistern", help="the program, if not that of the build directory")
    p.add_argument("--dir", default="/tmp/cistern-bench", help="where objects, mountpoints and caches go")
    p.add_argument("--runs", type=int, default=runs)
    p.add_argument("--short", action="store_true", help="small and quick: shows that it works, not how fast it is")
    p.add_argument("--no-peers", dest="peers", action="store_false", help="leave s3fs and rclone out")
    p.add_argument("--json", help="append the verdicts to this file, a line each")
    p.add_argument("mount_options", nargs="*", help="after --: options of every `cistern mount`")
    return p


def parse(p):
    args = p.parse_args()
    args.cistern = args.cistern or os.path.join(args.build, "src/cli/cistern")
    args.reader = os.path.join(args.build, "bench/reader")
    for program, target in (args.cistern, "src/cli/cistern"), (args.reader, "bench/reader"):
        if not os.access(program, os.X_OK):
            sys.exit(f"{program} is missing: meson setup -Dbuildtype=release {args.build}; ninja -C {args.build} {target}")
    if args.short:
        args.runs = min(args.runs, 1)
    os.makedirs(args.dir, exist_ok=True)
    args.objects = os.path.join(args.dir, "objects")
    args.mountpoint = os.path.join(args.dir, "mnt")
    args.verdicts = []
    return args


# ---- readers ----

def write_list(args, lines):
    with tempfile.NamedTemporaryFile("w", dir=args.dir, prefix="list-", delete=False) as f:
        f.write("".join(f"{line}\n" for line in lines))
    return f.name


def reader(args, *argv, timeout=900):
    """Runs bench/reader and gives its figures."""
    done = subprocess.run([args.reader, *map(str, argv)], stdout=subprocess.PIPE, check=True, timeout=timeout)
    return json.loads(done.stdout)


def fetch(args, endpoint, jobs, threads):
    """The limit: plain ranges [(key, offset, length)] over kept connections, nothing kept of what comes."""
    host, port = endpoint.split("//")[1].split(":")
    path = write_list(args, (f"/bench/{key} {offset} {length}" for key, offset, length in jobs))
    try:
        return reader(args, "fetch", threads, host, port, path)
    finally:
        os.unlink(path)


def ranges_of(key, size, step=8 << 20):
    return [(key, at, min(step, size - at)) for at in range(0, size, step)]


def fio(path, *options, timeout=600):
    done = subprocess.run(["fio", "--name=bench", f"--filename={path}", "--readonly", "--output-format=json",
                           "--invalidate=0", *options], stdout=subprocess.PIPE, check=True, timeout=timeout)
    return json.loads(done.stdout[done.stdout.index(b"{"):])


# ---- the state of the machine ----

def drop_pages(*paths):
    """Takes files, and what is below directories, out of the page cache."""
    for path in paths:
        names = [path] if os.path.isfile(path) else [os.path.join(d, f) for d, _, files in os.walk(path) for f in files]
        for name in names:
            try:
                fd = os.open(name, os.O_RDONLY)
            except OSError:
                continue  # a socket, or gone meanwhile
            try:
                with contextlib.suppress(OSError):
                    os.fsync(fd)
                with contextlib.suppress(OSError):
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


def warm_pages(*paths):
    """Reads files, so that the store serves them from the page cache."""
    buffer = bytearray(1 << 20)
    for path in paths:
        with open(path, "rb", buffering=0) as f:
            while f.readinto(buffer):
                pass


def loaded(args, endpoint, target, cache, *options):
    """`cistern load` of a prefix or object of the bucket into a cache directory. Seconds."""
    began = time.monotonic()
    done = subprocess.run([args.cistern, "load", f"oss://bench/{target}", "--cache-dir", cache, "--endpoint", endpoint, "--anonymous", "--quiet",
                           *options], stderr=subprocess.PIPE, text=True, timeout=1800, check=False)
    if done.returncode:
        raise RuntimeError(f"cistern load ended with status {done.returncode}: {done.stderr.strip()}")
    return time.monotonic() - began


def opens(args):
    """How files were opened, as `cistern stats` tells it: so that a figure that was not measured through passthrough is known for it."""
    seen = mount_stats(args)
    return f"opens {seen['opens']}, passthrough {seen['passthrough']}"


def fresh(directory):
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory, mode=0o700)
    return directory


# ---- peers ----

def peers(args):
    return [name for name in ("s3fs", "rclone") if args.peers and shutil.which(name)]


@contextlib.contextmanager
def peer_mount(name, directory, endpoint, cache=None, write=False):
    """The bucket "bench" through s3fs or rclone, in the foreground; with `cache` they keep what they read there."""
    os.makedirs(directory, exist_ok=True)
    if name == "s3fs":
        command = ["s3fs", "bench", directory, "-f", "-o", f"url={endpoint},use_path_request_style,public_bucket=1,parallel_count=20,"
                   + ("" if write else "ro,") + "multireq_max=64,stat_cache_expire=3600" + (f",use_cache={cache}" if cache else "")]
    else:
        command = ["rclone", "mount", ":s3:bench", directory, "--s3-provider", "Other", "--s3-endpoint", endpoint, *(() if write else ("--read-only",)),
                   "--s3-no-check-bucket", "--config", os.devnull, "--dir-cache-time", "1h", "--buffer-size", "256M", "--vfs-read-chunk-size", "64M",
                   *(("--vfs-cache-mode", "full", "--cache-dir", cache) if cache else ())]
    environment = {"PATH": os.environ["PATH"], "HOME": directory}  # neither proxies nor certificates of this user
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        for _ in range(400):
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with status {process.returncode}")
            if os.path.ismount(directory):
                break
            time.sleep(0.025)
        yield process.pid
    finally:
        subprocess.run(["umount", directory], check=False, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            subprocess.run(["umount", "-l", directory], check=False)
            process.kill()
            process.wait()


# ---- measuring ----

def mount_stats(args, mountpoint=None):
    done = subprocess.run([args.cistern, "stats", mountpoint or args.mountpoint, "--json"], stdout=subprocess.PIPE, check=True, timeout=30)
    return json.loads(done.stdout)


def measure(work, endpoint=None, store_pid=None, mount_pid=None):
    """Runs work(), which gives reader()'s figures, and adds CPU, memory and requests of the others."""
    if endpoint:
        reset_stats(endpoint)
    pids = {"mount_cpu": mount_pid, "store_cpu": store_pid}
    before = {name: cpu_seconds(pid) for name, pid in pids.items() if pid}
    figures = dict(work())
    for name, cpu in before.items():
        figures[name] = cpu_seconds(pids[name]) - cpu
    if mount_pid:
        figures["rss"] = peak_rss_mib(mount_pid)
    if endpoint:
        seen = stats(endpoint)
        figures["requests"], figures["fetched"] = seen["requests"], seen["bytes_out"]
    return figures


def rate(f):
    return f["bytes"] / 1e6 / f["seconds"]


def middle(samples, value):
    return statistics.median(value(s) for s in samples)


def line_of(f):
    """CPU, memory and requests of one measurement, as far as it has them."""
    gb, parts = max(f["bytes"], 1) / 1e9, []
    cpu = [f"{who} {f[key] / gb:.2f}" for who, key in (("mount", "mount_cpu"), ("reader", "cpu"), ("store", "store_cpu")) if key in f]
    parts.append("CPU s/GB: " + ", ".join(cpu))
    if "rss" in f:
        parts.append(f"peak {f['rss']:.0f} MiB")
    if "requests" in f:
        total = sum(f["requests"].values())
        names = ", ".join(f"{k} {v}" for k, v in sorted(f["requests"].items()))
        parts.append(f"requests {total} ({names}), fetched {f['fetched'] / max(f['bytes'], 1):.3f} bytes a byte")
    return "; ".join(parts)


def interleave(args, contestants, shown):
    """Runs each of {name: function} in turn, `--runs` times, another one first each time, since all leave memory in some state to the next; prints every
    run and gives {name: [figures]}. One that fails is told and left out."""
    seen = {name: [] for name in contestants}
    names = list(contestants)
    for run in range(1, args.runs + 1):
        first = (run - 1) % len(names)
        for name in names[first:] + names[:first]:
            if seen[name] is None:
                continue
            try:
                figures = contestants[name]()
            except (RuntimeError, OSError, subprocess.SubprocessError) as e:
                if name.startswith("cistern"):
                    raise
                print(f"  {name}: {e}", flush=True)
                seen[name] = None
                continue
            seen[name].append(figures)
            print(f"  run {run}  {name:24} {shown(figures)}; {line_of(figures)}", flush=True)
    return {name: figures for name, figures in seen.items() if figures}


def verdict(args, what, target, measured, ok):
    args.verdicts.append({"what": what, "target": target, "measured": measured, "ok": bool(ok)})


def print_table(rows):
    head = {"what": "target of", "target": "wanted", "measured": "measured", "ok": ""}
    rows = [head, *({**r, "ok": "ok" if r["ok"] else "missed"} for r in rows)]
    widths = {key: max(len(r[key]) for r in rows) for key in ("what", "target", "measured")}
    for r in rows:
        print("  ".join(r[key].ljust(width) for key, width in widths.items()) + "  " + r["ok"])


def finish(args):
    """Prints the verdicts, and keeps them for `bench/all`."""
    if not args.verdicts:
        return
    print()
    print_table(args.verdicts)
    if args.json:
        with open(args.json, "a", encoding="utf-8") as f:
            for row in args.verdicts:
                f.write(json.dumps(row) + "\n")
