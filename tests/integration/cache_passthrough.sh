#!/usr/bin/env bash
# A loaded file is opened passthrough: the kernel reads it without the mount. Replaced while open: old handle old bytes, new open new bytes, never an
# error. The same bytes without passthrough.
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

kernel=$(uname -r)
STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
cache="$WORK/cache"
mkdir -p "$demo"
head -c 20000003 /dev/urandom >"$demo/big"
head -c 3000 /dev/urandom >"$demo/small"
head -c 8000000 /dev/urandom >"$demo/changing"
cp "$demo/changing" "$WORK/old"
start_store
store=(--endpoint "$STORE_URL" --anonymous)
load() { "$CISTERN" load "$@" --cache-dir "$cache" --quiet "${store[@]}"; }
load oss://demo/ || fail "the load failed"

start_mount oss://demo "$mnt" --cache-dir "$cache" --attr-timeout 0 --entry-timeout 0 --list-timeout 0
if [ "$(mount_stat .passthrough)" != on ]; then
	case $(mount_stat .passthrough) in
	*"kernel before 6.9"*) skip "kernel $kernel has no passthrough" ;;
	*CAP_SYS_ADMIN*) skip "not permitted here" ;;
	*stacked*) skip "the work directory is on a stacked file system" ;;
	esac
fi
check "stats say that it is on" equal "$(mount_stat .passthrough)" on
check "the log says it" has "$MOUNT_LOG" 'passthrough: on'
before=$(mount_stat .files.bytes_read)
check "the file's bytes" cmp "$demo/big" "$mnt/big"
check "a passthrough open was counted" test "$(mount_stat .opens.passthrough)" -ge 1
check "the mount gave none of them" equal "$(mount_stat .files.bytes_read)" "$before"
check "a mapping" python3 - "$demo/big" "$mnt/big" <<'PY'
import mmap, sys
a, b = (open(p, "rb") for p in sys.argv[1:])
m = mmap.mmap(b.fileno(), 0, prot=mmap.PROT_READ)
data = a.read()
assert len(m) == len(data)
assert m[:] == data
PY
check "past the end" equal "$(dd if="$mnt/big" bs=1M skip=30 2>/dev/null | wc -c)" 0
check "a small one is served by the mount" cmp "$demo/small" "$mnt/small"
check "64 opens at once" python3 - "$mnt/big" "$demo/big" <<'PY'
import os, sys, threading
want = open(sys.argv[2], "rb").read()
bad = []
def one(i):
    fd = os.open(sys.argv[1], os.O_RDONLY)
    at = i * 300000
    if os.pread(fd, 200000, at) != want[at:at + 200000]:
        bad.append(i)
    os.close(fd)
threads = [threading.Thread(target=one, args=(i,)) for i in range(64)]
[t.start() for t in threads]
[t.join() for t in threads]
assert not bad, bad
PY
check "writing is refused" has <(dd if=/dev/zero of="$mnt/big" count=1 conv=notrunc 2>&1) 'Read-only file system'

# Replaced while open.
cat >"$WORK/replace.py" <<'PY'
import hashlib, os, subprocess, sys, time
path, old, source, new = sys.argv[1:5]
old = open(old, "rb").read()
fd = os.open(path, os.O_RDONLY)
assert os.pread(fd, 1 << 20, 0) == old[:1 << 20]
fresh = os.urandom(7000001)
with open(new, "wb") as f:
    f.write(fresh)
os.replace(new, source)
end = time.time() + 20
while True:
    other = os.open(path, os.O_RDONLY)
    data = b""
    while len(data) < len(fresh):
        piece = os.pread(other, 1 << 20, len(data))
        if not piece:
            break
        data += piece
    os.close(other)
    assert data == fresh or data == old, "mixed"
    if data == fresh:
        break
    assert time.time() < end, "still the old one"
    time.sleep(0.1)
at = 0
while at < len(old):
    piece = os.pread(fd, 1 << 20, at)
    assert piece == old[at:at + len(piece)] and piece, at
    at += len(piece)
os.close(fd)
PY
check "replaced while open: old handle old bytes, new open new bytes" timeout 60 python3 "$WORK/replace.py" "$mnt/changing" "$WORK/old" "$demo/changing" "$STORE_DIR/.new"
load oss://demo/changing
check "the new version, loaded" cmp "$demo/changing" "$mnt/changing"
check "no open has failed" equal "$(mount_stat .passthrough)" on

# The cache drops what is open.
exec 3<"$mnt/big"
"$CISTERN" cache drop oss://demo/big --cache-dir "$cache" >/dev/null
check "dropped while open: the handle reads on" cmp "$demo/big" /dev/fd/3
check "and a new open too" cmp "$demo/big" "$mnt/big"
exec 3<&-
check "unmounted" stop_mount

load oss://demo/
start_mount oss://demo "$mnt" --cache-dir "$cache" --passthrough=false
check "switched off: the same bytes" diff -r "$demo" "$mnt"
check "no passthrough open" equal "$(mount_stat .opens.passthrough)" 0
check "and stats say why" equal "$(mount_stat .passthrough)" "off: by option"
check "the store was not asked" equal "$(mount_stat .requests.get)" 0
check "unmounted" stop_mount
start_mount oss://demo "$mnt" --cache-dir "$cache" -o direct_io
check "direct_io: the same bytes" diff -r "$demo" "$mnt"
check "and stats say why" equal "$(mount_stat .passthrough)" "off: direct_io"
check "unmounted" stop_mount
