#!/usr/bin/env bash
# The mount is killed while it fills the cache, several times at different moments: every byte is right afterwards, what was saved is used, and
# the cache can be checked.
# timeout: 300
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
cache="$WORK/cache"
mkdir -p "$demo"
for ((i = 0; i < 8; i++)); do head -c 9000000 /dev/urandom >"$demo/large$i"; done
for ((i = 0; i < 200; i++)); do head -c $((i * 100 + 1)) /dev/urandom >"$demo/small$i"; done
total=$(cat "$demo"/* | wc -c)
start_store --total-bandwidth 60MiB
sent() { store_stat .bytes_out; }
in_cache() { level_stat .saved_bytes; }
has_saved() { [ "$(in_cache)" -gt "$1" ]; }

for round in 1 2 3; do
	start_mount oss://demo "$mnt" --cache-dir "$cache" --passthrough=false
	# Two directions and many small ones at once.
	(cat "$mnt"/large[0-3] >/dev/null) &
	a=$!
	(for f in "$mnt"/small*; do cat "$f"; done >/dev/null) 2>/dev/null &
	b=$!
	(tac "$mnt"/large[4-7] >/dev/null) 2>/dev/null &
	c=$!
	wait_for 60 has_saved $((round * 7000000)) || fail "nothing is saved"
	kill -9 "$MOUNT_PID"
	wait "$MOUNT_PID" 2>/dev/null
	umount -l "$mnt"
	kill "$a" "$b" "$c" 2>/dev/null
	wait "$a" "$b" "$c" 2>/dev/null
done
check "nothing in the cache is bad" timeout 60 "$CISTERN" cache verify --cache-dir "$cache"
store_stats_reset
start_mount oss://demo "$mnt" --cache-dir "$cache" --passthrough=false
check "every byte is right" diff -r "$demo" "$mnt"
again=$(sent)
echo "#| of $((total >> 20)) MiB, $((again >> 20)) MiB were fetched again after three kills"
check "the cache is of use" test "$again" -lt $((total * 3 / 4))
check "no checksum was wrong" equal "$(level_stat .corrupt)" 0
check "unmounted" stop_mount

"$CISTERN" load oss://demo/ --cache-dir "$cache" --endpoint "$STORE_URL" --anonymous --quiet || fail "the load failed"
start_mount oss://demo "$mnt" --cache-dir "$cache"
# All is complete now; killed while passthrough files are open.
exec 3<"$mnt/large0"
head -c 100 <&3 >/dev/null
kill -9 "$MOUNT_PID"
wait "$MOUNT_PID" 2>/dev/null
exec 3<&-
umount -l "$mnt"
store_stats_reset
start_mount oss://demo "$mnt" --cache-dir "$cache"
check "complete files are still complete" diff -r "$demo" "$mnt"
check "and nothing is fetched" equal "$(store_stat '.requests.GetObject // 0')" 0
check "unmounted" stop_mount
