#!/usr/bin/env bash
# Saved listings: a mount that is made anew knows them at once, no longer than it may; a save that was killed, a file that is damaged and one of another
# bucket do no harm.
# sanitize long
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
saved="$WORK/saved"
mkdir -p "$demo" "$STORE_DIR/other"
for ((d = 0; d < 40; d++)); do
	mkdir -p "$demo/dir$d/sub"
	touch "$demo/dir$d/"{a,b,c} "$demo/dir$d/sub/x"
done
start_store
requests() { store_stat '.requests | add // 0'; }
names() { (cd "$mnt" && find . | sort) >"$WORK/found"; }
(cd "$demo" && find . | sort) >"$WORK/wanted"
found() { names && cmp "$WORK/wanted" "$WORK/found"; }
file_of() { find "$1" -type f ! -name '*.new'; }
mount_saved() { start_mount oss://demo "$mnt" --metadata-snapshot "$saved" "$@"; }

mount_saved
check "cold" found
check "unmounted" stop_mount
check "the file is there, for its owner alone" equal "$(stat -c %a "$(file_of "$saved")")" 600
check "and said to be" has "$MOUNT_LOG" "listings of 81 directories with 240 names are saved"

mount_saved
check "the next mount knows them" has "$MOUNT_LOG" "81 directories with 240 names are known from before"
store_stats_reset
check "every name" found
check "without a request" equal "$(requests)" 0
check "unmounted" stop_mount

# They get no younger by being saved.
mount_saved --list-timeout 1
sleep 1.1
store_stats_reset
check "what is too old is asked for" found
check "of the store" test "$(requests)" -gt 2
check "unmounted" stop_mount

touch "$demo/dir3/new"
rm "$demo/dir4/a"
sleep 1.1
mount_saved --list-timeout 1 --metadata-snapshot-max-age 1h
store_stats_reset
check "with a longer age they answer at once" test -e "$mnt/dir4/b"
ls "$mnt/dir3" "$mnt/dir4" >"$WORK/names"
seen() { [ -e "$mnt/dir3/new" ] && [ ! -e "$mnt/dir4/a" ]; }
check "and are listed again in the background" wait_for 20 seen
rm "$demo/dir3/new"
touch "$demo/dir4/a"
check "unmounted" stop_mount

# A mount that is killed leaves the file before; what it was writing is not taken for it. Whoever keeps the mount is killed with it.
rm -rf "$saved"
mount_saved
check "mounted once more" found
check "unmounted" stop_mount
cp "$(file_of "$saved")" "$WORK/before"
processes() { echo "$MOUNT_PID" "$(pgrep -P "$MOUNT_PID" | tr '\n' ' ')"; }
gone() { for pid in "$@"; do _is_gone "$pid" || return 1; done; }
for ((i = 0; i < 5; i++)); do
	mount_saved
	check "everything is there ($i)" found
	read -ra pids <<<"$(processes)"
	umount "$mnt"
	sleep "0.00$i"
	kill -9 "${pids[@]}" 2>/dev/null
	wait "$MOUNT_PID" 2>/dev/null
	wait_for 10 gone "${pids[@]}"
	mount_saved
	check_not "killed at its end: nothing damaged ($i)" has "$MOUNT_LOG" "damaged"
	check "everything is there again ($i)" found
	check "unmounted ($i)" stop_mount
done

file=$(file_of "$saved")
for damage in 'truncate -s -9' 'truncate -s 100' 'truncate -s 0' 'printf x >>'; do
	cp "$WORK/before" "$file"
	eval "$damage" '"$file"'
	mount_saved
	check "damaged by $damage: one line says so" equal "$(grep -c 'the saved listings in .* are not used: the file is damaged' "$MOUNT_LOG")" 1
	check "and all is asked for" found
	check "unmounted" stop_mount
done
python3 - "$file" <<'PY'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
data[len(data) // 2] ^= 64
open(sys.argv[1], "wb").write(data)
PY
mount_saved
check "a wrong byte is seen" has "$MOUNT_LOG" "the file is damaged"
check "and all is asked for" found
check "unmounted" stop_mount

start_mount oss://other "$mnt" --metadata-snapshot "$saved"
check "another bucket has its own" equal "$(find "$mnt" | wc -l)" 1
check "unmounted" stop_mount
check "two files" equal "$(file_of "$saved" | wc -l)" 2

# What a mount has changed is there after it was killed, also for the process that takes over: listings of before are not used any more.
writes() { mount_saved -o "write=append,keep_dir=$WORK/kept"; }
rm -rf "$saved"
mount_saved
check "everything is there" found
check "unmounted" stop_mount
writes
check "a mount that writes knows what was saved" has "$MOUNT_LOG" "are known from before"
echo mine >"$mnt/dir5/mine"
rm "$mnt/dir6/a"
there() { [ "$(cat "$mnt/dir5/mine")" = mine ] && [ ! -e "$mnt/dir6/a" ]; }
check "what it changes is there" there
read -ra pids <<<"$(processes)"
kill -9 "${pids[1]}"
check "and after a death of what serves" wait_for 20 there
read -ra pids <<<"$(processes)"
kill -9 "${pids[@]}" 2>/dev/null
wait "$MOUNT_PID" 2>/dev/null
wait_for 10 gone "${pids[@]}"
umount -l "$mnt" 2>/dev/null
writes
check "and after a death of everything" there
rm "$mnt/dir5/mine"
touch "$mnt/dir6/a"
check "unmounted" stop_mount

# With a cache on disk and an age it is the default; off is off.
start_mount oss://demo "$mnt" --cache-dir "$WORK/cache:1GiB" --metadata-snapshot-max-age 1h
check "a mount with a cache" found
check "unmounted" stop_mount
check "saves them there" test -s "$(file_of "$WORK/cache/listings")"
start_mount oss://demo "$mnt" --cache-dir "$WORK/cache:1GiB" --metadata-snapshot-max-age 1h
check "and knows them" found
check "unmounted" stop_mount
start_mount oss://demo "$mnt" --cache-dir "$WORK/cache3:1GiB"
check "without an age" found
check "unmounted" stop_mount
check "nothing is saved" test ! -e "$WORK/cache3/listings"
start_mount oss://demo "$mnt" --cache-dir "$WORK/cache2:1GiB" --metadata-snapshot off --metadata-snapshot-max-age 1h
check "off" found
check "unmounted" stop_mount
check "is off" test ! -e "$WORK/cache2/listings"
start_mount oss://demo "$mnt" --metadata-snapshot /proc/nowhere
check "where nothing can be saved" found
check "it ends as ever" stop_mount
check "with a line in the log" has "$MOUNT_LOG" "can't save listings in /proc/nowhere"
