#!/usr/bin/env bash
# A load that was killed in the middle is run again: only what is missing is fetched, and every byte is right.
# sanitize long
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
mkdir -p "$demo/data"
for ((i = 0; i < 12; i++)); do head -c 5000000 /dev/urandom >"$demo/data/$i"; done
for ((i = 0; i < 100; i++)); do head -c 20000 /dev/urandom >"$demo/data/small$i"; done
total=$((12 * 5000000 + 100 * 20000))
start_store --total-bandwidth 12MiB
cache="$WORK/cache"
load() { "$CISTERN" load oss://demo/data/ --cache-dir "$cache" --endpoint "$STORE_URL" --anonymous "$@"; }
sent() { store_stat .bytes_out; }
sent_more_than() { [ "$(sent)" -gt "$1" ]; }

"$CISTERN" load oss://demo/data/ --cache-dir "$cache" --endpoint "$STORE_URL" --anonymous --quiet --parallel 4 &
pid=$!
check "it is under way" wait_for 60 sent_more_than $((total / 2))
kill -9 "$pid"
wait "$pid" 2>/dev/null
idle() { [ "$(store_stat .in_flight)" = 0 ]; }
wait_for 30 idle || fail "the store still sends"
before=$(sent)
echo "#| killed after $((before >> 20)) of $((total >> 20)) MiB"
store_stats_reset
timeout 200 "$CISTERN" load oss://demo/data/ --cache-dir "$cache" --endpoint "$STORE_URL" --anonymous --output json >"$WORK/out"
check "run again, it ends well" equal "$?" 0
again=$(sent)
echo "#| then $((again >> 20)) MiB were fetched in $(store_stat .requests.GetObject) requests"
# What was on its way at the moment of the kill is lost: two objects' ranges, and what waited for the disk.
check "what was there is not fetched again" test "$again" -le $((total - before + 3 * 5000000))
check "what was there counts as done" test "$(jq -s '.[-1].objects_done' "$WORK/out")" = 112
store_stats_reset
check "a third run" load --quiet
check "fetches nothing" equal "$(store_stat '.requests.GetObject // 0')" 0

# Ctrl-C: what is under way is kept as far as it came.
"$CISTERN" load oss://demo/data/ --cache-dir "$WORK/cache2" --endpoint "$STORE_URL" --anonymous --parallel 4 >"$WORK/out" 2>&1 &
pid=$!
store_stats_reset
check "another one is under way" wait_for 60 sent_more_than $((total / 2))
kill -INT "$pid"
status=0
wait "$pid" || status=$?
check "interrupted: status 1" equal "$status" 1
check "it says how to go on, and what was not reached" has "$WORK/out" '^Loaded [0-9]+ files?, [0-9]+ not reached; .*'
check "and to run it again" has "$WORK/out" "the same command goes on"
wait_for 30 idle || fail "the store still sends"
store_stats_reset
check "run again, it ends well" "$CISTERN" load oss://demo/data/ --cache-dir "$WORK/cache2" --endpoint "$STORE_URL" --anonymous --quiet
check "with less than all" test "$(sent)" -le $((total / 2 + 4 * 5000000))

start_mount oss://demo "$mnt" --cache-dir "$cache"
check "every byte is right" diff -r "$demo" "$mnt"
check "unmounted" stop_mount
