#!/usr/bin/env bash
# Starts and ends that overlap: a process that ends after its successor has begun, one that was killed, signals at any moment of the
# start, several mounts of one directory, many mounts at once, a store that hangs.
# sanitize long
. "$(dirname "$0")/lib.sh"
requires curl jq python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
mnt="$WORK/mnt"
mkdir -p "$STORE_DIR/demo" "$mnt"
echo content >"$STORE_DIR/demo/file"
for ((i = 0; i < 20; i++)); do head -c 5000000 /dev/zero >"$STORE_DIR/demo/big$i"; done
start_store
cleanup "umount -l '$mnt' 2>/dev/null"

mount_at() { # DIRECTORY [OPTIONS…]; sets $pid
	local dir=$1
	shift
	"$CISTERN" mount oss://demo "$dir" --endpoint "$STORE_URL" --anonymous --log-dir "$WORK/logs" "$@" >"$dir.out" 2>"$dir.err" || return 1
	pid=$(sed -n 's/.*(process \([0-9]*\))$/\1/p' "$dir.out")
	cleanup "kill -CONT $pid 2>/dev/null; stop_process $pid"
}
ends() { wait_for "${2:-30}" _is_gone "$1"; }
stats_answer() { [ "$("$CISTERN" stats "$mnt" --json | jq .pid)" = "$pid" ]; }
reads() { equal "$(timeout 20 cat "$mnt/file")" content; }

# The first process has not noticed its umount yet when the second mounts.
mount_at "$mnt"
first=$pid
kill -STOP "$first"
python3 -c "import ctypes, sys; sys.exit(ctypes.CDLL(None).umount2(sys.argv[1].encode(), 0))" "$mnt" # umount(8) would ask the stopped process
check "mounted again before the process of the last mount has ended" mount_at "$mnt"
kill -CONT "$first"
check "that one ends" ends "$first"
check "and leaves the new one's control socket alone" stats_answer
check "the mount works" reads

# Killed.
kill -9 "$pid"
ends "$pid"
check "a mount whose process was killed is unmounted" timeout 20 "$CISTERN" umount "$mnt"
check_not "nothing is mounted" is_mounted "$mnt"
check "a second umount says so" bash -c '"$1" umount "$2" 2>&1 | grep -q "nothing is mounted there"' - "$CISTERN" "$mnt"
check "mounted over the socket it left" mount_at "$mnt"
check "stats answers" stats_answer

# One directory, one mount.
for ((i = 0; i < 6; i++)); do
	"$CISTERN" mount oss://demo "$mnt" --endpoint "$STORE_URL" --anonymous --log-dir "$WORK/logs" >/dev/null 2>"$WORK/again$i" &
	again[i]=$!
done
refused=0
for p in "${again[@]}"; do wait "$p" || refused=$((refused + 1)); done
check "a mounted directory is not mounted on again" equal "$refused" 6
check "it says why" has "$WORK/again0" "is mounted there already"
"$CISTERN" umount "$mnt"
ends "$pid"
again=()
for ((i = 0; i < 6; i++)); do
	"$CISTERN" mount oss://demo "$mnt" --endpoint "$STORE_URL" --anonymous --log-dir "$WORK/logs" >/dev/null 2>&1 &
	again[i]=$!
done
refused=0
for p in "${again[@]}"; do wait "$p" || refused=$((refused + 1)); done
check "of six at once one mounts" equal "$refused $(grep -cF " $mnt fuse" /proc/mounts)" "5 1"
while is_mounted "$mnt"; do "$CISTERN" umount "$mnt" || umount -l "$mnt"; done

# A signal at any moment of the start leaves nothing behind.
left=0
runs_cistern() { [ "$(readlink "/proc/$1/exe")" = "$CISTERN" ] || _is_gone "$1"; }
for ((i = 0; i < 40; i++)); do
	"$CISTERN" mount oss://demo "$mnt" -f --endpoint "$STORE_URL" --anonymous 2>/dev/null &
	p=$!
	wait_for 20 runs_cistern "$p"
	sleep "0.0$((RANDOM % 50 + 10))"
	kill -TERM "$p"
	ends "$p" || left=$((left + 1))
	wait "$p" 2>/dev/null
	if is_mounted "$mnt"; then
		left=$((left + 1))
		umount -l "$mnt"
	fi
done
check "SIGTERM at any moment of the start" equal "$left" 0

# Many mounts.
many=()
for ((i = 0; i < 25; i++)); do
	mkdir "$WORK/many$i"
	cleanup "umount -l '$WORK/many$i' 2>/dev/null"
	mount_at "$WORK/many$i" && many+=("$pid")
done
check "25 mounts" equal "$(cat "$WORK"/many*/file | grep -c content)" 25
for ((i = 0; i < 25; i++)); do "$CISTERN" umount "$WORK/many$i"; done
for p in "${many[@]}"; do ends "$p" || left=$((left + 1)); done
check "25 ends" equal "$left" 0

# A store that hangs while everything is busy.
mount_at "$mnt"
ls "$mnt" >/dev/null
kill -STOP "$STORE_PID"
cleanup "kill -CONT $STORE_PID 2>/dev/null"
busy=()
for ((i = 0; i < 20; i++)); do
	cat "$mnt/big$i" >/dev/null 2>&1 &
	busy+=($!)
	stat "$mnt/none$i/x" >/dev/null 2>&1 &
	busy+=($!)
done
in_flight() { [ "$("$CISTERN" stats "$mnt" --json | jq .kernel.in_flight)" -ge 10 ]; }
check "requests hang" wait_for 20 in_flight
kill -TERM "$pid"
check "SIGTERM ends the process all the same" ends "$pid" 30
check_not "nothing is mounted then" is_mounted "$mnt"
left=0
for p in "${busy[@]}"; do ends "$p" 20 || left=$((left + 1)); done
check "and the programs" equal "$left" 0
kill -CONT "$STORE_PID"
