#!/usr/bin/env bash
# A refresh that finds very many names changed tells the kernel of each: all show, and what is mounted inside stays.
# long
# timeout: 600
. "$(dirname "$0")/lib.sh"
requires python3
requires_fuse
[ "$(id -u)" = 0 ] || skip "needs to mount"

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
count=${MANY:-40000}
# In memory: on a disk that others use it takes longer to remove so many files than to run the test.
mkdir -p "$STORE_DIR"
mount -t tmpfs -o nr_inodes=0 cistern-test "$STORE_DIR" || fail "no tmpfs"
cleanup "umount -l '$STORE_DIR'"
mkdir -p "$demo/many" "$demo/place" "$WORK/bound"
echo "marker" >"$demo/place/marker"
echo "inside" >"$WORK/bound/file"
make() {
	python3 - "$demo/many" "$1" "$count" <<'PY'
import sys
directory, text, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for i in range(count):
    with open(f"{directory}/{i:06d}", "w") as f:
        f.write(text)
PY
}
# Sizes and how many files have them, by names that are known: a stat of each.
sizes() {
	python3 - "$mnt/many" "$count" <<'PY'
import collections, os, sys
print(dict(collections.Counter(os.stat(f"{sys.argv[1]}/{i:06d}").st_size for i in range(int(sys.argv[2])))))
PY
}
make one
start_store
start_mount oss://demo "$mnt" --attr-timeout 7200 --entry-timeout 7200 --list-timeout 7200
check "listed" test "$(ls "$mnt/many" | wc -l)" = "$count"
check "all have the first size" equal "$(sizes)" "{3: $count}"
mount --bind "$WORK/bound" "$mnt/place" || fail "no bind mount"
cleanup "umount -l '$mnt/place' 2>/dev/null"
make "another"
echo "changed" >"$demo/place/marker"
check "the refresh finds them" has <(timeout 300 "$CISTERN" refresh "$mnt") "$count changed, 0 new, 0 gone"
check "all show" equal "$(sizes)" "{7: $count}"
check "still mounted inside" equal "$(cat "$mnt/place/file")" inside
check "in the table too" grep -q " $mnt/place " /proc/mounts
check_not "no message was lost" grep -q 'found the queue full' "$MOUNT_LOG"
umount "$mnt/place"
check "below it the new version" equal "$(cat "$mnt/place/marker")" changed
check "unmounted" stop_mount
