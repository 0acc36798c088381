#!/usr/bin/env bash
# `cistern load MOUNT/path`: the mount loads into its own cache; metadata makes listings warm; Ctrl-C cancels it there; a command that
# has gone is noticed.
# sanitize long
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
mkdir -p "$demo/top/dir/sub" "$demo/top/o*d" "$demo/many" "$demo/slow"
head -c 5000001 /dev/urandom >"$demo/top/dir/a"
head -c 1000 /dev/urandom >"$demo/top/dir/sub/b"
head -c 3000 /dev/urandom >"$demo/top/file"
head -c 2000 /dev/urandom >"$demo/top/o*d/x"
head -c 2000 /dev/urandom >"$demo/top/oad"
for ((i = 0; i < 100; i++)); do
	mkdir "$demo/many/$i"
	echo "$i" >"$demo/many/$i/f"
done
for ((i = 0; i < 8; i++)); do head -c 4000000 /dev/zero >"$demo/slow/$i"; done
start_store
# The mount shows a prefix of the bucket.
ln -s "$mnt" "$WORK/link"
start_mount oss://demo/top "$mnt" --cache-dir "$WORK/cache" --list-timeout 600

load() { timeout 60 "$CISTERN" load "$@"; }
summary() { grep '"event": "summary"' "$WORK/out" | jq -c "$1"; }
gets() { store_stat '.requests.GetObject // 0'; }

load "$mnt/dir" --output json >"$WORK/out"
check "a directory is loaded by the mount" equal "$(summary '[.objects_done, .objects_failed]')" "[2,0]"
before=$(gets)
check "its files are read" diff -r "$demo/top/dir" "$mnt/dir"
check "without another GET" equal "$(gets)" "$before"
load "$mnt/dir" "$WORK/link/file" --output json >"$WORK/out"
check "what is there is skipped; a path through a symbolic link is found" equal "$(summary '[.objects_done, .objects_skipped]')" "[3,2]"
load "$mnt/o*d" --output json >"$WORK/out"
check "a directory whose name looks like a pattern is that directory" equal "$(summary .objects)" 1
load "$mnt/[of]*" --output json >"$WORK/out"
check "a pattern that is no file's name" equal "$(summary .objects)" 2
printf 'file\ndir/a\n' | load "$mnt" --list - --output json >"$WORK/out"
check "a list of names below the mount" equal "$(summary '[.objects, .objects_skipped]')" "[2,2]"
check "a name that is nothing is a failure" has <(load "$mnt/nothing" 2>&1 || echo "status $?") '^status 1$'
check "a cache of its own is refused" refuses "cache_dir can't be used .* its own cache" "$CISTERN" load "$mnt/dir" --cache-dir "$WORK/c2"
check "and limits of its own" refuses "origin_bandwidth can't be used" "$CISTERN" load "$mnt/dir" --origin-bandwidth 1MiB
check "a path elsewhere is refused" refuses "no mount of cistern" "$CISTERN" load /etc
none_listed() { [ "$(mount_stat '.loads | length')" = 0 ]; }
check "stats list no load that was told to have ended" wait_for 10 none_listed
check "unmounted" stop_mount

start_mount 'oss://demo/top/o*d' "$mnt" --cache-dir "$WORK/cache2"
load "$mnt/x" --output json >"$WORK/out"
check "a mount of a prefix that looks like a pattern" equal "$(summary .objects_done)" 1
load "$mnt" --output json >"$WORK/out"
check "all of it" equal "$(summary .objects)" 1
check "unmounted" stop_mount

start_mount oss://demo "$mnt" --list-timeout 600
check "without a cache it says so" refuses "it has no cache on disk" "$CISTERN" load "$mnt/top"
check "metadata alone needs none" load "$mnt/many" --metadata
store_stats_reset
check "lookups and listings are answered from memory" ls -lR "$mnt/many"
check "no request" equal "$(store_stat '.requests | add // 0')" 0
check "unmounted" stop_mount
stop_store

start_store --bandwidth 400KiB
start_mount oss://demo "$mnt" --cache-dir "$WORK/cache3" --memory 64MiB
in_loads() { [ "$("$CISTERN" stats "$mnt" --json | jq '[.loads[] | select(.finished | not)] | length')" = "$1" ]; }
"$CISTERN" load "$mnt/slow" --parallel 2 >"$WORK/out" 2>"$WORK/err" &
pid=$!
check "a load runs in the mount" wait_for 20 in_loads 1
kill -INT "$pid"
status=0
wait "$pid" || status=$?
check "the interrupted command fails" equal "$status" 1
check "and says how to go on" has "$WORK/out" "the same command goes on"
check "the mount's load has ended" wait_for 10 in_loads 0
check "unmounting while a load runs" bash -c '"$1" load "$2/slow" >/dev/null 2>&1 & sleep 1; umount "$2"' - "$CISTERN" "$mnt"
check "the process ends" wait_for 60 _is_gone "$MOUNT_PID"
