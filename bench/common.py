"""What the benchmarks share: a store and a mount of their own, their CPU time and memory, and a machine in a known state."""
import contextlib
import json
import mmap
import os
import signal
import subprocess
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
        yield process.pid
    finally:
        subprocess.run([cistern, "umount", directory], check=False, timeout=30, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            subprocess.run(["umount", "-l", directory], check=False)
            process.kill()
            process.wait()
