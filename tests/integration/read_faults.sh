#!/usr/bin/env bash
# sanitize
# timeout: 300
# A sick store (503s, connections cut, short bodies, crawling ones) costs time, never a byte; a store that sends another object's ETag
# never gets mixed bytes through.
. "$(dirname "$0")/lib.sh"
requires curl jq python3 cmp
requires_root
requires_fuse

STORE_DIR=$WORK/objects
mkdir -p "$STORE_DIR/demo/many"
head -c 50000000 /dev/urandom >"$STORE_DIR/demo/large"
for ((i = 0; i < 300; i++)); do
	head -c $((i * 331)) /dev/urandom >"$STORE_DIR/demo/many/$i"
done
start_store --fail 0.10:503 --fail 0.05:reset --fail 0.05:short --fail-seed 42
start_mount oss://demo "$WORK/mnt"
all_equal() {
	(cd "$STORE_DIR/demo" && find . -type f -print0) | SOURCE=$STORE_DIR/demo MOUNT=$WORK/mnt xargs -0 -P 16 -n 10 bash -c '
		for f; do cmp -- "$SOURCE/$f" "$MOUNT/$f" || exit 255; done' _
}
check "every byte is right" all_equal
check "faults were injected" test "$(store_stat '[.faults // {} | .. | numbers] | add // 0')" -gt 10
check "unmounts" stop_mount
stop_store

start_store --fail 0.3:etag:GetObject --fail-seed 7
start_mount oss://demo "$WORK/mnt"
check "another object's ETag gives an error or the right bytes" python3 - "$STORE_DIR/demo" "$WORK/mnt" <<'PY'
import errno, os, sys
source, mnt = sys.argv[1:]
right = wrong = 0
for name in [f"many/{i}" for i in range(300)]:
    want = open(os.path.join(source, name), "rb").read()
    try:
        with open(os.path.join(mnt, name), "rb") as f:
            assert f.read() == want, name
        right += 1
    except OSError as e:
        assert e.errno in (errno.ESTALE, errno.EIO), e
        wrong += 1
print(right, wrong)
assert right > 100
PY
check "unmounts again" stop_mount
