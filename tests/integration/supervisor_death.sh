#!/usr/bin/env bash
# The process that keeps a mount dies: the one that serves starts another. Both at once: programs get errors and don't hang. SIGTERM to either unmounts.
# sanitize long
# timeout: 180
. "$(dirname "$0")/lib.sh"
requires curl jq
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
mnt="$WORK/mnt"
mkdir -p "$STORE_DIR/demo" "$mnt"
for i in 0 1 2 3 4 5 6 7; do head -c 2000000 /dev/urandom >"$STORE_DIR/demo/f$i"; done
start_store
start_mount oss://demo "$mnt"
keeper() { pgrep -f "^cistern: supervisor of $mnt\$"; }
server() { pgrep -f "^cistern: file system of $mnt\$"; }
other_keeper() { [ -n "$(keeper)" ] && [ "$(keeper)" != "$1" ]; }
other_server() { [ -n "$(server)" ] && [ "$(server)" != "$1" ]; }
cleanup 'for p in $(keeper) $(server); do kill -9 $p; done'

exec 8<"$mnt/f0"
kill -9 "$MOUNT_PID"
check "another process keeps the mount" wait_for 30 other_keeper 0
check "the file system is read" timeout 30 cmp "$mnt/f1" "$STORE_DIR/demo/f1"
check "the open file too" cmp <(cat <&8) "$STORE_DIR/demo/f0"
exec 8<&-
check "the statistics say so" equal "$(mount_stat '[.supervisor.takeovers, .pid] | tostring')" "[1,$(keeper)]"
kill -9 "$(server)"
check "the process that serves is started again by it" timeout 30 cmp "$mnt/f2" "$STORE_DIR/demo/f2"

# In turns, without a pause between them.
right=0
for ((i = 0; i < 6; i++)); do
	k=$(keeper) s=$(server)
	kill -9 "$k"
	wait_for 30 other_keeper "$k" || break
	sleep "0.0$((RANDOM % 9))"
	kill -9 "$s"
	timeout 60 cmp "$mnt/f$((i % 8))" "$STORE_DIR/demo/f$((i % 8))" && right=$((right + 1))
	wait_for 30 other_server "$s"
	wait_for 30 keeper
	sleep 0.5
done
check "in turns" equal "$right" 6

k=$(keeper)
kill -TERM "$(server)"
check "SIGTERM to the process that serves unmounts" wait_for 30 _is_gone "$k"
check_not "nothing is mounted" is_mounted "$mnt"
check_not "nothing runs" server

start_mount oss://demo "$mnt"
kill -9 "$MOUNT_PID"
wait_for 30 other_keeper 0
exec 8<"$mnt/f0"
k=$(keeper)
kill -TERM "$k"
check "SIGTERM to a later keeper unmounts a busy mount" wait_for 30 _is_gone "$k"
check_not "nothing is mounted then" is_mounted "$mnt"
check "who still has a file open gets an error" eval '! timeout 20 cat <&8 >/dev/null 2>"$WORK/err" && has "$WORK/err" "not connected|abort|Input/output"'
exec 8<&-

# Both at once. Whether one of them had the time to start another is a matter of luck: the mount goes on, or programs get errors; nothing hangs.
for ((i = 0; i < 5; i++)); do
	start_mount oss://demo "$mnt"
	s=$(server)
	if [ $((i % 2)) = 0 ]; then kill -9 "$MOUNT_PID" "$s"; else kill -9 "$s" "$MOUNT_PID"; fi
	status=0
	timeout 20 cat "$mnt/f3" >/dev/null 2>"$WORK/err" || status=$?
	check "both killed: nothing hangs" test "$status" -lt 2
	[ "$status" = 0 ] || check "the error is that of a dead mount" has "$WORK/err" "not connected|abort"
	check "the mount can be removed" timeout 20 "$CISTERN" umount "$mnt"
	check "nothing is left" wait_for 30 eval '[ -z "$(keeper)$(server)" ]'
done

# Asked to abort: the kernel's own way to end a mount.
start_mount oss://demo "$mnt"
minor=$(awk -v m="$mnt" '$5 == m {split($3, d, ":"); print d[2]}' /proc/self/mountinfo | tail -n 1)
if [ -e "/sys/fs/fuse/connections/$minor/abort" ]; then
	echo 1 >"/sys/fs/fuse/connections/$minor/abort"
	check "an aborted mount ends both processes" wait_for 30 _is_gone "$MOUNT_PID"
	check_not "and is unmounted" is_mounted "$mnt"
fi
