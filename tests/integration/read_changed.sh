#!/usr/bin/env bash
# sanitize
# An object that changes while it is open: ESTALE for the handle, never mixed bytes; a new open sees the new object.
. "$(dirname "$0")/lib.sh"
requires curl jq python3
requires_root
requires_fuse

STORE_DIR=$WORK/objects
mkdir -p "$STORE_DIR/demo"
start_store
start_mount oss://demo "$WORK/mnt" -o direct_io,attr_timeout=1,entry_timeout=1,list_timeout=1
cat >"$WORK/changed.py" <<'PY'
import errno, os, sys, time

store, mnt, case = sys.argv[1:]
SIZE = 40 << 20

def put(name, byte, size=SIZE):
    with open(os.path.join(store, ".new"), "wb") as f:
        f.write(bytes([byte]) * size)
    os.rename(os.path.join(store, ".new"), os.path.join(store, name))

def put_through_api(name, byte, size=SIZE):
    import urllib.request
    request = urllib.request.Request(os.environ["STORE_URL"] + "/demo/" + name, data=bytes([byte]) * size, method="PUT")
    urllib.request.urlopen(request, timeout=60).read()

replace = put if case == "plain" else put_through_api
put("object", ord("a"))
time.sleep(1.2)
fd = os.open(os.path.join(mnt, "object"), os.O_RDONLY)
assert os.pread(fd, 4096, 0) == b"a" * 4096
inode = os.fstat(fd).st_ino
replace("object", ord("b"), SIZE + 5)
try:
    got = os.pread(fd, 4096, 30 << 20)
    # What had been fetched ahead may be served, but only of the old object.
    assert got == b"a" * 4096, got[:10]
    got = os.pread(fd, 4096, 39 << 20)
    assert got == b"a" * 4096, got[:10]
    print("both reads were in memory")
    sys.exit(1)
except OSError as e:
    assert e.errno == errno.ESTALE, e
deadline = time.monotonic() + 30
while True:
    with open(os.path.join(mnt, "object"), "rb") as f:
        content = f.read()
    if content == b"b" * (SIZE + 5):
        break
    assert content in (b"a" * SIZE,), f"mixed bytes: {len(content)} {set(content)}"
    assert time.monotonic() < deadline, "the new object is not seen"
    time.sleep(0.2)
assert os.stat(os.path.join(mnt, "object")).st_ino != inode
assert os.stat(os.path.join(mnt, "object")).st_size == SIZE + 5
# The old handle stays with the old object.
try:
    assert os.pread(fd, 4096, 20 << 20) == b"a" * 4096
except OSError as e:
    assert e.errno == errno.ESTALE, e
os.unlink(os.path.join(store, "object"))
deadline = time.monotonic() + 30
while os.path.exists(os.path.join(mnt, "object")):
    assert time.monotonic() < deadline, "the deleted object is still seen"
    time.sleep(0.2)
PY
export STORE_URL
check "a file that a user replaced in the store's folder" timeout 100 python3 "$WORK/changed.py" "$STORE_DIR/demo" "$WORK/mnt" plain
check "an object replaced with PUT" timeout 100 python3 "$WORK/changed.py" "$STORE_DIR/demo" "$WORK/mnt" api
check "unmounts" stop_mount
