#!/usr/bin/env bash
# A process that serves a mount and gives no sign of life is replaced within the deadline, programs go on; when that happens again and again, the mount is
# given up: programs get errors and don't hang. A store that hangs is no reason.
# timeout: 180
. "$(dirname "$0")/lib.sh"
requires curl jq
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
mnt="$WORK/mnt"
mkdir -p "$STORE_DIR/demo" "$mnt"
for i in 0 1 2 3 4 5; do head -c 3000000 /dev/urandom >"$STORE_DIR/demo/f$i"; done
start_store
start_mount oss://demo "$mnt" --hang-timeout 2s
fs=$(fs_pid)
kill -STOP "$fs"
check "a program waits until the stopped process is replaced" timeout 60 cmp "$mnt/f0" "$STORE_DIR/demo/f0"
check "that one is dead" wait_for 20 _is_gone "$fs"
check "the log says why" has "$MOUNT_LOG" "gives no sign of life"
check "the statistics count it" equal "$(mount_stat '[.supervisor.hangs, .supervisor.last_exit] | tostring')" '[1,"no sign of life"]'

# Requests that wait for the store are no hang.
kill -STOP "$STORE_PID"
cleanup "kill -CONT $STORE_PID 2>/dev/null"
cat "$mnt/f1" >"$WORK/f1" &
reader=$!
sleep 5
kill -CONT "$STORE_PID"
check "a store that hangs holds up the reader" wait "$reader"
check "who gets the right bytes" cmp "$WORK/f1" "$STORE_DIR/demo/f1"
check "and is no reason to replace anybody" equal "$(mount_stat .supervisor.restarts)" 1

# The process that keeps the mount stands still together with the other (a container that is frozen): nobody is killed for that.
fs=$(fs_pid)
kill -STOP "$fs" "$MOUNT_PID"
sleep 4
kill -CONT "$fs" "$MOUNT_PID"
check "both were stopped for a while: the mount goes on" timeout 60 cmp "$mnt/f2" "$STORE_DIR/demo/f2"
check "with the same process" equal "$(fs_pid)" "$fs"

# Again and again.
for i in 1 2; do
	fs=$(pgrep -P "$MOUNT_PID")
	kill -STOP "$fs"
	timeout 60 cat "$mnt/f$((i + 2))" >"$WORK/out$i" 2>"$WORK/err$i"
	echo $? >"$WORK/status$i"
	wait_for 20 _is_gone "$fs"
done
check "the second time it goes on" equal "$(cat "$WORK/status1")" 0
check "the third time programs get an error" has "$WORK/err2" "not connected|abort|Input/output"
check "the process that kept the mount ends" wait_for 30 _is_gone "$MOUNT_PID"
status=0
wait "$MOUNT_PID" || status=$?
check "with an error" equal "$status" 1
check "the log says so" has "$MOUNT_LOG" "giving up"
check_not "nothing is mounted" is_mounted "$mnt"
