#!/usr/bin/env bash
# sanitize
# A store that is killed in the middle of a read and comes back is survived by retries.
. "$(dirname "$0")/lib.sh"
requires curl jq cmp
requires_root
requires_fuse

mkdir -p "$WORK/objects/demo"
STORE_DIR=$WORK/objects
head -c 60000000 /dev/urandom >"$STORE_DIR/demo/large"
start_store --total-bandwidth 20MiB
start_mount oss://demo "$WORK/mnt"

cat "$WORK/mnt/large" >"$WORK/copy" &
reader=$!
half_way() { [ "$(stat -c %s "$WORK/copy")" -gt 10000000 ]; }
check "reading goes on" wait_for 60 half_way
kill -9 "$STORE_PID"
wait "$STORE_PID" 2>/dev/null
check "the reader waits" kill -0 "$reader"
STORE_LISTEN=$STORE_ADDRESS
start_store
wait "$reader"
check "the reader ended well" equal $? 0
check "every byte is right" cmp "$STORE_DIR/demo/large" "$WORK/copy"
check "unmounts" stop_mount
