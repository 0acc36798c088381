#!/usr/bin/env bash
# The disk of the cache is small, or fills up because of others: reads go on, the bytes are right, and the room that was to stay free stays free.
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
disk="$WORK/disk"
mkdir -p "$demo" "$disk"
for ((i = 0; i < 16; i++)); do head -c 8000000 /dev/urandom >"$demo/large$i"; done
for ((i = 0; i < 100; i++)); do head -c 20000 /dev/urandom >"$demo/small$i"; done
start_store
mount -t tmpfs -o size=64M,nr_inodes=4000 tmpfs "$disk" || skip "tmpfs can't be mounted"
cleanup "umount -l '$disk'"
free_mib() { df --output=avail -B1M "$disk" | tail -n 1 | tr -d ' '; }
# Watches the free room while a command runs; prints the least.
least_free() {
	local least=9999 now pid
	"$@" >"$WORK/least.log" 2>&1 &
	pid=$!
	while ! _is_gone "$pid"; do
		now=$(free_mib)
		[ "$now" -lt "$least" ] && least=$now
		sleep 0.02
	done
	wait "$pid" || echo "failed"
	echo "$least"
}

start_mount oss://demo "$mnt" --cache-dir "$disk/c" --cache-keep-free 20MiB --passthrough=false
least=$(least_free diff -r "$demo" "$mnt")
echo "#| of 64 MiB, $least MiB stayed free where 20 were asked for"
check "128 MB are read through a disk of 64 MiB" has <(echo "$least") '^[0-9]+$'
# It is looked at now and then; what is written meanwhile by several at once may go a little beyond.
check "the room that was to stay free did" test "$least" -ge 14
check "some is kept" test "$(level_stat .used)" -gt 8000000
check "the level says so in its counters" test "$(level_stat '| .refused_bytes + .evicted')" -gt 0

# Somebody else takes the room.
head -c 18M /dev/zero >"$disk/other"
check "others fill the disk: reads go on" diff -r "$demo" "$mnt"
head -c 64M /dev/zero >"$disk/other2" 2>/dev/null
check "it is full: reads go on" diff -r "$demo" "$mnt"
rm -f "$disk/other" "$disk/other2"
check "it is empty again: reads go on" diff -r "$demo" "$mnt"
check "the level is in use again" has <(level_stat .state) '^(ok|full)$'
check "no checksum was wrong" equal "$(level_stat .corrupt)" 0
check "unmounted" stop_mount
check "nothing in the cache is bad" timeout 60 "$CISTERN" cache verify --cache-dir "$disk/c"

# No inodes.
python3 -c '
import sys
for i in range(100000):
    try: open("%s/file%d" % (sys.argv[1], i), "w").close()
    except OSError: break
' "$disk"
start_mount oss://demo "$mnt" --cache-dir "$disk/c" --cache-keep-free 1MiB --passthrough=false
check "no inodes are left: reads go on" diff -r "$demo" "$mnt"
check "unmounted" stop_mount
