#!/usr/bin/env bash
# Listings that come before anybody asks: a walk is listed ahead of, a mount lists all there is, load --metadata what is below a path; at a page for a
# thousand names instead of one for each directory. What they show is what listings of each directory show. --path-probe: all levels of a path at once.
# sanitize long
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
python3 - "$demo" <<'PY'
import os, sys
top = sys.argv[1]
def touch(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
for d in range(120):
    for f in range(50):
        touch(f"{top}/tree/dir{d:03d}/f{f:02d}")
for f in range(30):
    touch(f"{top}/tree/file{f}")
for d in range(60):
    touch(f"{top}/tree/dir{d:03d}/below/deeper/x{d}")
touch(f"{top}/deep/a/b/c/d/e/f/file")
PY
start_store --latency 2ms
(cd "$demo/tree" && find . | sort) >"$WORK/wanted"
lists() { store_stat '[.requests | to_entries[] | select(.key | startswith("ListObjects")) | .value] | add // 0'; }
requests() { store_stat '.requests | add // 0'; }
found() { (cd "$1" && find . | sort) >"$WORK/found" && cmp "$WORK/wanted" "$WORK/found"; }
at_most() { [ "$1" -le "$2" ] || { echo "$1 is more than $2"; return 1; }; }
# 6,090 keys make 7 pages; the directories are 241.

start_mount oss://demo/tree "$mnt" -o preload_metadata=no
store_stats_reset
check "without preload, every name is found" found "$mnt"
check "by a request for each directory" equal "$(lists)" 241
check "unmounted" stop_mount

start_mount oss://demo/tree "$mnt"
store_stats_reset
check "a walk finds every name" found "$mnt"
walked=$(lists)
check "at a fraction of the requests" at_most "$walked" 60
store_stats_reset
check "once more" found "$mnt"
check "without a request" equal "$(requests)" 0
check "unmounted" stop_mount

# Two directories opened are no walk; three may be one, and cost little if they aren't.
start_mount oss://demo/tree "$mnt" --list-timeout 600
ls "$mnt" >"$WORK/names"
store_stats_reset
ls "$mnt/dir100" "$mnt/dir101" >"$WORK/names"
check "two directories are listed by themselves" equal "$(lists)" 2
ls "$mnt/dir102" >"$WORK/names"
sleep 0.3
check "a walk that stops at once has cost few requests" at_most "$(lists)" 6
check "unmounted" stop_mount

store_stats_reset
start_mount oss://demo/tree "$mnt" -o preload_metadata --list-timeout 600
check "a mount lists all there is" wait_for 30 has "$MOUNT_LOG" "preload of tree/: 24[01] directories, .* requests in"
check "at a page for a thousand names" at_most "$(lists)" 20
store_stats_reset
check "it shows every name" found "$mnt"
check "without a request" equal "$(requests)" 0
echo new >"$demo/tree/dir007/new"
"$CISTERN" refresh "$mnt/dir007" >"$WORK/out"
check "a refresh shows what is new" test -e "$mnt/dir007/new"
rm "$demo/tree/dir007/new"
"$CISTERN" refresh "$mnt" >"$WORK/out"
check "and of everything what is gone" test ! -e "$mnt/dir007/new"
check "unmounted" stop_mount

start_mount oss://demo/tree "$mnt" -o preload_metadata=yes --metadata-memory 1MiB --list-timeout 600
check "used up memory ends it with a line in the log" wait_for 30 has "$MOUNT_LOG" "stopped after .* memory for listings is used up"
check "and everything is there all the same" found "$mnt"
check "unmounted" stop_mount

start_mount oss://demo "$mnt" -o preload_metadata=no --list-timeout 600
store_stats_reset
check "load --metadata" timeout 60 "$CISTERN" load "$mnt/tree" --metadata --quiet
check "costs little" at_most "$(lists)" 24
store_stats_reset
check "and all is known" found "$mnt/tree"
check "without a request" equal "$(requests)" 0
check "a path that is a file" timeout 60 "$CISTERN" load "$mnt/tree/file1" --metadata --quiet
check "unmounted" stop_mount

start_mount oss://demo/deep "$mnt" -o preload_metadata=no
store_stats_reset
check "a cold path" stat "$mnt/a/b/c/d/e/f/file"
cold=$(requests)
check "unmounted" stop_mount
start_mount oss://demo/deep "$mnt" --path-probe
store_stats_reset
check "a cold path with --path-probe" stat "$mnt/a/b/c/d/e/f/file"
check "two requests" equal "$(requests)" 2
check "instead of more" at_most 3 "$cold"
check "what isn't there" test ! -e "$mnt/a/b/c/nothing"
check "without another one" equal "$(requests)" 2
check "unmounted" stop_mount

check "a value that is none" refuses "yes\|no\|auto" "$CISTERN" mount oss://demo "$mnt" --endpoint "$STORE_URL" --anonymous -o preload_metadata=perhaps
