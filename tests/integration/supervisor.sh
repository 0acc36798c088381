#!/usr/bin/env bash
# The process that serves a mount is killed again and again while programs read: they notice nothing. Open files, working directories and mounts inside
# stay; what is passed through to the cache is given back by whoever serves then.
# sanitize long
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires curl jq
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
mnt="$WORK/mnt"
mkdir -p "$STORE_DIR/demo/dir/sub" "$STORE_DIR/demo/inside" "$mnt"
for i in 0 1 2 3 4 5 6 7; do head -c 3000000 /dev/urandom >"$STORE_DIR/demo/f$i"; done
head -c 20000000 /dev/urandom >"$STORE_DIR/demo/long"
echo x >"$STORE_DIR/demo/dir/sub/x"
echo y >"$STORE_DIR/demo/inside/y"
start_store
start_mount oss://demo "$mnt" --cache-dir "$WORK/cache"
keeper=$MOUNT_PID

mount -t tmpfs none "$mnt/inside"
cleanup "umount '$mnt/inside' 2>/dev/null"
echo nested >"$mnt/inside/z"
exec 8<"$mnt/long"
check "a file is read a little" cmp <(head -c 1000000 <&8) <(head -c 1000000 "$STORE_DIR/demo/long")
cd "$mnt/dir/sub" || exit 1

# Each reads a file of its own and compares, drops what the kernel has of it now and then, lists, and asks for names that don't exist.
reads_on() { # NUMBER
	while [ ! -e "$WORK/enough" ]; do
		cmp "$mnt/f$1" "$STORE_DIR/demo/f$1" || return 1
		dd of="$mnt/f$1" oflag=nocache conv=notrunc,fdatasync count=0 2>/dev/null
		ls "$mnt/dir" >/dev/null || return 1
		[ ! -e "$mnt/dir/none$RANDOM" ] || return 1
		[ "$(cat "$mnt/dir/sub/x")" = x ] || return 1
		echo round >>"$WORK/rounds$1"
	done
}
readers=()
for i in 0 1 2 3 4 5 6 7; do
	reads_on $i >"$WORK/reader$i.out" 2>&1 &
	readers+=($!)
done
killed=0 gone_on=-1
has_gone_on() { [ "$(grep -c 'goes on with' "$MOUNT_LOG")" -gt "$gone_on" ]; }
for ((k = 0; k < 20; k++)); do
	# At any moment of its life, every third time of its start: more of those in a row would have the mount given up.
	[ $((k % 3)) = 0 ] || wait_for 60 has_gone_on
	sleep "0.$((RANDOM % 4 + 1))"
	gone_on=$(grep -c 'goes on with' "$MOUNT_LOG")
	fs=$(pgrep -P "$keeper")
	kill -9 "$fs" && killed=$((killed + 1))
	wait_for 30 _is_gone "$fs"
	wait_for 30 pgrep -P "$keeper"
done
another_round() { # NUMBER
	local before
	before=$(wc -l <"$WORK/rounds$1")
	wait_for 60 eval "[ \"\$(wc -l <\"$WORK/rounds$1\")\" -gt $((before + 1)) ]"
}
for i in 0 1 2 3 4 5 6 7; do
	check "reader $i goes on" another_round $i
done
touch "$WORK/enough"
for i in 0 1 2 3 4 5 6 7; do
	check "reader $i has read the right bytes all the time" wait "${readers[i]}"
done
check "20 were killed" equal "$killed" 20
check "the statistics say so" test "$(mount_stat .supervisor.restarts)" -ge 20
check "the process that keeps the mount is the same" equal "$(mount_stat .pid)" "$keeper"
check "they say what happened last" equal "$(mount_stat .supervisor.last_exit)" "signal 9 (Killed)"
check "the metrics too" has <("$CISTERN" stats "$mnt" --metrics) "^cistern_supervisor_restarts_total [2-9][0-9]"
check "the working directory is what it was" equal "$(cat x; readlink /proc/$$/cwd)" "x
$mnt/dir/sub"
check "what is mounted inside is still there" equal "$(cat "$mnt/inside/z")" nested
check "the open file reads on where it was" cmp <(cat <&8) <(tail -c +1000001 "$STORE_DIR/demo/long")
cd / || exit 1
exec 8<&-
umount "$mnt/inside"

# Passed through to the cache: reading goes on in the kernel, and the file is let go of after the RELEASE that another process gets.
passes_through() { [ "$(mount_stat .opens.passthrough)" -gt 0 ]; }
cached() { "$CISTERN" load "$mnt/long" && exec 7<"$mnt/long" && passes_through; }
if [ "$(mount_stat .passthrough)" = on ]; then
	check "a cached file is passed through" cached
	fs=$(fs_pid)
	kill -9 "$fs"
	check "it is read while nobody serves" cmp <(cat <&7) "$STORE_DIR/demo/long"
	inherited() { [ "$(mount_stat .supervisor.inherited_opens)" = "$1" ]; }
	check "the next process knows of it" wait_for 30 inherited 1
	check "the same file can be opened beside it" cmp "$mnt/long" "$STORE_DIR/demo/long"
	exec 7<&-
	check "and gives it back" wait_for 30 inherited 0
fi

# A store that is down is no reason for anything.
check "the memory of the mount is small" test "$(mount_stat .supervisor.kept_records)" -lt 1000
stop_store
fs=$(fs_pid)
kill -9 "$fs"
wait_for 30 _is_gone "$fs"
check "a process starts while the store is down" wait_for 60 grep -q "going on all the same" "$MOUNT_LOG"
check "it unmounts" stop_mount
check_not "nothing is left of it" pgrep -f "cistern: .*$mnt\$"
