#!/usr/bin/env bash
# timeout: 200
# Bodies that crawl on some connections: the rest of each range is read over another one, long before the deadline.
. "$(dirname "$0")/lib.sh"
requires curl jq cmp
requires_root
requires_fuse

STORE_DIR=$WORK/objects
mkdir -p "$STORE_DIR/demo"
head -c 60000000 /dev/urandom >"$STORE_DIR/demo/large"
# At 16 KiB/s a range of 8 MiB would take 512 s, more than the deadline allows.
start_store --fail 0.5:slow:GetObject --fail-seed 11
start_mount oss://demo "$WORK/mnt" --request-timeout 1s
check "every byte comes" timeout 150 cmp "$STORE_DIR/demo/large" "$WORK/mnt/large"
check "bodies did crawl" test "$(store_stat '[.faults // {} | .. | numbers] | add // 0')" -gt 2
check "unmounts" stop_mount
