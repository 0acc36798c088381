#!/usr/bin/env bash
# The program that serves a mount is replaced while it is read from; one that can't go on with it changes nothing.
# timeout: 180
. "$(dirname "$0")/lib.sh"
requires curl jq fio
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
mnt="$WORK/mnt"
mkdir -p "$STORE_DIR/demo" "$mnt"
# What fio verifies while it reads was written by it.
fio --name=v --directory="$STORE_DIR/demo" --size=24m --bs=64k --rw=write --verify=crc32c --do_verify=0 --nrfiles=1 --numjobs=2 --ioengine=psync --verify_state_save=0 \
	--filename_format='v$jobnum' >"$WORK/fio.write" 2>&1 || skip "fio can't write"
echo content >"$STORE_DIR/demo/file"
start_store
cd "$WORK" || exit 1
start_mount oss://demo "$mnt"
keeper=$MOUNT_PID
cp "$CISTERN" "$WORK/next"
exec 8<"$mnt/v0"
cmp <(head -c 1000000 <&8) <(head -c 1000000 "$STORE_DIR/demo/v0") || fail "can't read"

verifies_on() { # NUMBER
	while [ ! -e "$WORK/enough" ]; do
		fio --name=v --directory="$mnt" --size=24m --bs=64k --rw=read --verify=crc32c --verify_fatal=1 --verify_state_save=0 --readonly --direct=1 \
			--ioengine=psync --filename=v"$1" || return 1
		echo round >>"$WORK/rounds$1"
	done
}
for i in 0 1; do
	verifies_on $i >"$WORK/fio$i.out" 2>&1 &
	job[i]=$!
done
moves() { # NUMBER: another round begins and ends
	local before
	before=$(wc -l <"$WORK/rounds$1" 2>/dev/null || echo 0)
	wait_for 60 eval "[ \"\$(wc -l <\"$WORK/rounds$1\" 2>/dev/null || echo 0)\" -gt $((before + 1)) ]"
}
check "fio reads" moves 0
before=$(fs_pid)
for n in 1 2 3 4 5; do
	check "upgrade $n" "$CISTERN" upgrade "$mnt" --program "$WORK/next"
done
check "another process serves" test "$(fs_pid)" != "$before"
check "it runs the other program" equal "$(readlink "/proc/$(fs_pid)/exe")" "$WORK/next"
check "the process that keeps the mount is the same" equal "$(mount_stat .pid)" "$keeper"
check "fio goes on" moves 0
check "and the other" moves 1
check "the statistics count them" equal "$(mount_stat .supervisor.upgrades)" 5
fs=$(fs_pid)
kill -9 "$fs"
wait_for 30 _is_gone "$fs"
check "what dies after an upgrade is started again" equal "$(timeout 30 cat "$mnt/file")" content
check "with the new program" equal "$(readlink "/proc/$(fs_pid)/exe")" "$WORK/next"

before=$(fs_pid)
check "a program that is none is refused" refuses "Exec format|Permission denied|can't run|ended" "$CISTERN" upgrade "$mnt" --program "$STORE_DIR/demo/file"
check "one that is missing" refuses "No such file" "$CISTERN" upgrade "$mnt" --program "$WORK/nosuch"
check "one that ends" refuses "exit status" "$CISTERN" upgrade "$mnt" --program /bin/false
check "nothing has changed" equal "$(fs_pid)" "$before"
check "the file is still read" cmp <(cat <&8) <(tail -c +1000001 "$STORE_DIR/demo/v0")
check "a mount that isn't there" refuses "no cistern" "$CISTERN" upgrade "$WORK"

# The process that serves dies while the next one is still being prepared, which this one is for ever: a shell that runs what its first argument names.
printf 'kill -STOP $$\n' >"$WORK/file system of"
"$CISTERN" upgrade "$mnt" --program "$(realpath "$(command -v bash)")" >"$WORK/upgrade.out" 2>&1 &
upgrade=$!
prepared() { [ "$(pgrep -cP "$keeper")" = 2 ]; }
check "an upgrade begins" wait_for 20 prepared
kill -9 "$before"
check_not "it has failed when the process that serves dies meanwhile" wait "$upgrade"
check "the next one is not held up by it" "$CISTERN" upgrade "$mnt"
check "nobody is left of the first" equal "$(pgrep -cP "$keeper")" 1
touch "$WORK/enough"
for i in 0 1; do
	check "fio found no wrong byte" wait "${job[i]}"
done
exec 8<&-
check "it ends cleanly" stop_mount
