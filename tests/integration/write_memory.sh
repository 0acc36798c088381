#!/usr/bin/env bash
# timeout: 180
# 500 files open for writing in 64 MiB of buffers: all of them make progress, nothing is lost, and memory stays where it was said to.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires curl jq python3

mkdir -p "$WORK/objects/demo"
STORE_DIR=$WORK/objects
BUCKET=$STORE_DIR/demo
start_store
start_mount oss://demo "$WORK/mnt" -o "write=append,keep_dir=$WORK/kept,upload_memory=64MiB,memory=64MiB"

cat >"$WORK/many.py" <<'PY'
import hashlib, os, sys, threading
mnt, count, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
SIZE, STEP = 300000, 60000
def block(i, at):
    seed = hashlib.sha256(b"%d %d" % (i, at)).digest()
    return (seed * (STEP // 32 + 1))[:STEP]
def content(i):
    return b"".join(block(i, at) for at in range(0, SIZE, STEP))
if mode == "check":
    for i in range(count):
        if open(f"{mnt}/f{i}", "rb").read() != content(i):
            sys.exit(f"f{i} is not what was written")
    sys.exit(0)
failures = []
if mode == "turns":  # one program with 500 files, a piece to each in turn
    fds = [os.open(f"{mnt}/f{i}", os.O_WRONLY | os.O_CREAT, 0o644) for i in range(count)]
    for at in range(0, SIZE, STEP):
        for i, fd in enumerate(fds):
            os.write(fd, block(i, at))
    for fd in fds:
        os.close(fd)
else:
    barrier = threading.Barrier(count)
    def run(i):
        try:
            fd = os.open(f"{mnt}/f{i}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.write(fd, block(i, 0))
            barrier.wait(120)
            for at in range(STEP, SIZE, STEP):
                os.write(fd, block(i, at))
            os.close(fd)
        except Exception as e:
            failures.append(f"f{i}: {e!r}")
    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    [t.start() for t in threads]
    [t.join() for t in threads]
for f in failures[:10]:
    print(f)
sys.exit(bool(failures))
PY
resident() { awk '/^VmHWM/ {print $2}' "/proc/$(fs_pid)/status"; }
check "500 files, a piece to each in turn" timeout 120 python3 "$WORK/many.py" "$WORK/mnt" 500 turns
check "every byte is there" python3 "$WORK/many.py" "$BUCKET" 500 check
check "500 threads, all open at once" timeout 120 python3 "$WORK/many.py" "$WORK/mnt" 500 threads
check "every byte is there" python3 "$WORK/many.py" "$BUCKET" 500 check
check "buffers stayed within their limit" test "$(mount_stat .writes.memory_peak)" -le $((64 << 20))
check "it was used" test "$(mount_stat .writes.memory_peak)" -ge $((16 << 20))
echo "#| resident at most: $(resident) KiB, buffers $(mount_stat .writes.memory_peak) bytes"
# Buffers, the data of writes that wait (128 KiB each at most), the process itself.
[ "${CISTERN_SANITIZED:-}" ] || check "the process stayed small" test "$(resident)" -le $(((64 + 64 + 72) * 1024))
check "nothing was lost" equal "$(mount_stat '.writes.conflicts + .writes.failures + .writes.bytes_pending')" 0
check "unmounts cleanly" stop_mount
