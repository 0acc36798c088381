#!/usr/bin/env bash
# Opens of every kind while files become whole in the cache, are dropped from it and are replaced in the store: never an error, and what one
# handle reads is one version.
# timeout: 240
# sanitize long
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
cache="$WORK/cache"
mkdir -p "$demo" "$cache"
start_store --latency 2ms
start_mount oss://demo "$mnt" --cache-dir "$cache:2GiB" --attr-timeout 0 --entry-timeout 0 --list-timeout 0
[ "$(mount_stat .passthrough)" = on ] || skip "no passthrough here: $(mount_stat .passthrough)"

cat >"$WORK/opens.py" <<'PY'
# A version of a file is one byte over and over, in a size that belongs to it: a mixture of two shows.
import errno, mmap, os, random, subprocess, sys, threading, time
mnt, demo, cistern, cache, seconds = sys.argv[1:6]
FILES, end = 6, time.time() + float(seconds)
bad, counts, lock = [], {"opens": 0, "direct": 0, "mapped": 0, "gone": 0, "changed": 0}, threading.Lock()

def size_of(version):
    return 1500000 + version * 4096

def put(i, version):
    temporary = f"{demo}/../.new{i}"
    with open(temporary, "wb") as f:
        f.write(bytes([version]) * size_of(version))
    os.replace(temporary, f"{demo}/f{i}")

def count(what):
    with lock:
        counts[what] += 1

def use(seed):
    rng = random.Random(seed)
    while time.time() < end and not bad:
        i = rng.randrange(FILES)
        path = f"{mnt}/f{i}"
        direct = rng.random() < (0.5 if i < 2 else 0.02)  # one such open keeps a file from being passed through for a while
        try:
            fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
        except OSError as e:
            bad.append((path, "open", e, direct))
            return
        try:
            size = os.fstat(fd).st_size
            version = (size - 1500000) // 4096
            count("opens")
            buffer = mmap.mmap(-1, 1 << 20)
            if rng.random() < 0.2 and not direct:
                os.pread(fd, 1, 0)  # a mapping of what has vanished meanwhile would be a SIGBUS
                m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
                os.close(fd)
                fd = -1
                if m[0] != version:
                    bad.append((path, "mapping", m[0], version))
                m.close()
                count("mapped")
                continue
            for _ in range(3):
                at = rng.randrange(0, size, 4096)
                n = os.preadv(fd, [memoryview(buffer)[:65536]], at)
                if n <= 0 or any(b != version for b in set(buffer[:n])):
                    bad.append((path, "read", n, set(buffer[:n]), version))
            if direct:
                count("direct")
        except OSError as e:
            if e.errno == errno.ESTALE:
                count("gone")
            else:
                bad.append((path, "read", e, direct))
        finally:
            if fd >= 0:
                os.close(fd)

def change():
    rng, version = random.Random(99), 10
    while time.time() < end and not bad:
        time.sleep(rng.random() * 0.6)
        what, i = rng.random(), rng.randrange(FILES)
        if what < 0.4:
            version = version % 200 + 1
            put(i, version)
            count("changed")
        elif what < 0.8:
            subprocess.run([cistern, "load", f"{mnt}/f{i}", "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        else:
            subprocess.run([cistern, "cache", "drop", f"oss://demo/f{i}", "--cache-dir", cache], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)

for i in range(FILES):
    put(i, i + 1)
threads = [threading.Thread(target=use, args=(s,)) for s in range(8)] + [threading.Thread(target=change)]
[t.start() for t in threads]
[t.join() for t in threads]
print(counts)
assert not bad, bad[:5]
assert counts["opens"] > 200 and counts["direct"] > 10 and counts["changed"] > 2, counts
PY
check "opens of every kind, for 20 s" timeout 120 python3 "$WORK/opens.py" "$mnt" "$demo" "$CISTERN" "$cache:2GiB" 20
sed 's/^/# /' "$WORK/.check"
cat >"$WORK/odd.py" <<'PY'
# O_DIRECT in pieces that no disk would take, while another handle has the file passed through.
import mmap, os, sys
path, source = sys.argv[1:3]
want = open(source, "rb").read()
plain = os.open(path, os.O_RDONLY)
direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
again = os.open(f"/proc/self/fd/{direct}", os.O_RDONLY | os.O_DIRECT)
buffer = memoryview(mmap.mmap(-1, 1 << 20))
for fd in (direct, again):
    for memory, at, length in ((0, 1, 100), (0, 4096, 1000), (3, 0, 4096), (0, len(want) - 7, 4096)):
        n = os.preadv(fd, [buffer[memory:memory + length]], at)
        assert buffer[memory:memory + n] == want[at:at + length], (memory, at, length, n)
assert os.pread(plain, 1000, 77) == want[77:1077]
other = os.open(f"/proc/self/fd/{plain}", os.O_RDONLY | os.O_DIRECT)  # no other node can be had here
assert os.preadv(other, [buffer[:4096]], 4096) == 4096 and buffer[:4096] == want[4096:8192]
PY
head -c 1500000 /dev/urandom >"$demo/odd"
"$CISTERN" load "$mnt/odd" --quiet >/dev/null
passed=$(mount_stat .opens.passthrough)
check "O_DIRECT in odd pieces of a loaded file" timeout 30 python3 "$WORK/odd.py" "$mnt/odd" "$demo/odd"
check "beside one that is passed through" test "$(mount_stat .opens.passthrough)" -gt "$passed"
check "some were passed through" test "$(mount_stat .opens.passthrough)" -ge 10
check "some were not" test "$(mount_stat .opens.page_cache)" -ge 10
check "all are closed" wait_for 20 sh -c "[ \$('$CISTERN' stats '$mnt' --json | jq .files.open_files) = 0 ]"
# Ended while files are open in both modes: who has them gets an error, the process leaves nothing behind.
"$CISTERN" load "$mnt/f0" --quiet >/dev/null
exec 3<"$mnt/f0" 4<"$mnt/f1" 5<"$mnt/f0"
check "open for the end" test "$(mount_stat .files.open_files)" -ge 3
terminated() {
	kill "$MOUNT_PID" && wait_for 30 _is_gone "$MOUNT_PID" && wait "$MOUNT_PID"
}
check "ended while files are open" terminated
check_not "what was open gives errors" head -c 1 /dev/fd/4
exec 3<&- 4<&- 5<&-
check_not "it is unmounted" is_mounted "$mnt"
