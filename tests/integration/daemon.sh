#!/usr/bin/env bash
# The mount goes to the background when it can be used, says where it logs, and ends cleanly on umount, SIGTERM and SIGINT.
# sanitize long
. "$(dirname "$0")/lib.sh"
requires curl jq
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
mnt="$WORK/mnt"
mkdir -p "$STORE_DIR/demo" "$mnt"
echo content >"$STORE_DIR/demo/file"
start_store
cleanup "umount -l '$mnt' 2>/dev/null"

mount_it() { # the parent's output goes to out; the process's number to $pid
	"$CISTERN" mount oss://demo mnt --endpoint "$STORE_URL" --anonymous "$@" >"$WORK/out" 2>"$WORK/err" || return 1
	# The command has returned: the mount must be usable at once, without waiting.
	cat mnt/file >"$WORK/read" || return 1
	pid=$(sed -n 's/.*(process \([0-9]*\))$/\1/p' "$WORK/out")
	[ -d "/proc/$pid" ]
}
gone() { wait_for 30 _is_gone "$pid" && ! is_mounted "$mnt"; }

cd "$WORK" || exit 1
check "a relative mountpoint; the mount works when the command returns" mount_it --log-dir logs
check "the content is right" equal "$(cat "$WORK/read")" content
check "the output says where it logs" has "$WORK/out" "oss://demo is mounted on $mnt, read-only; log: $WORK/logs/.*\\.log"
log=$(sed -n 's/.*log: \(.*\) (process.*/\1/p' "$WORK/out")
check "the log says what was mounted" has "$log" "mounted .*demo.* on .*mnt read-only"
check "its directory is /" equal "$(readlink "/proc/$pid/cwd")" /
check "its input and output are closed" equal "$(readlink "/proc/$pid/fd/0" "/proc/$pid/fd/1" "/proc/$pid/fd/2" | sort -u)" /dev/null
mv "$log" "$log.1"
kill -HUP "$pid"
check "SIGHUP reopens the log" wait_for 20 grep -q "reopened" "$log"
check "cistern stats answers" has <("$CISTERN" stats "$mnt") "^source +oss://demo"
check "cistern stats has metrics" has <("$CISTERN" stats "$mnt" --metrics) "^# TYPE cistern_"
check "cistern umount" "$CISTERN" umount mnt
check "the process has gone when umount returns" gone

for signal in TERM INT; do
	check "mounted again" mount_it --log-dir "$WORK/logs"
	kill -"$signal" "$pid"
	check "SIG$signal unmounts and ends it" gone
done

check "mounted for a busy unmount" mount_it --log-dir "$WORK/logs"
exec 9<mnt/file
check "umount of a busy mount is refused" refuses "in use|busy" "$CISTERN" umount mnt
check "an open file still reads" equal "$(head -c 7 <&9)" content
kill -TERM "$pid"
check "SIGTERM unmounts a busy one too" wait_for 20 bash -c "! grep -qF ' $mnt fuse' /proc/mounts"
exec 9<&-
check "the process ends then" gone

check "the log goes to the file that is named" mount_it --log-file "$WORK/own.log" --log-format json --log-level debug
check "as JSON" jq -e . "$WORK/own.log"
umount mnt
check "umount(8) ends it too" gone

status=0
"$CISTERN" mount oss://nosuchbucket mnt --endpoint "$STORE_URL" --anonymous --log-dir logs >"$WORK/out" 2>"$WORK/err" || status=$?
check "an error of the child is the command's" equal "$status $(wc -l <"$WORK/err") $(wc -c <"$WORK/out")" "1 1 0"
