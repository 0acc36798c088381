#!/usr/bin/env bash
# sanitize long
# timeout: 300
# The object client against a sick store, without a mount between: every object is read right through 503s, resets, short bodies
# and crawling ones; another object's ETag is never taken for the right one.
. "$(dirname "$0")/lib.sh"
requires curl jq
READER=$(dirname "$CISTERN")/../../tests/unit/object/object_reader
[ -x "$READER" ] || fail "object_reader is not built: ninja tests/unit/object/object_reader"

STORE_DIR=$WORK/objects
mkdir -p "$STORE_DIR/demo/a b/ü" "$STORE_DIR/small"
for ((i = 0; i < 200; i++)); do
	head -c $((i * i * 7)) /dev/urandom >"$STORE_DIR/demo/a b/ü/$i+%"
done
for ((i = 0; i < 100; i++)); do
	head -c $((i * 100)) /dev/urandom >"$STORE_DIR/small/$i"
done
head -c 5000000 /dev/urandom >"$STORE_DIR/demo/large"
: >"$STORE_DIR/demo/empty"

read_all() {
	local bucket=$1
	shift
	timeout 200 "$READER" "$STORE_URL" "$bucket" "$STORE_DIR/$bucket" "$@" >"$WORK/reader.out" 2>&1
	local rc=$?
	sed 's/^/# /' "$WORK/reader.out"
	return $rc
}

for fault in 503 reset short; do
	start_store --fail "0.2:$fault" --fail-seed 1
	check "every byte is right through 20 % $fault" read_all demo 2
	check "all objects were read" grep -q '^objects 202 reads 404 ' "$WORK/reader.out"
	stop_store
done
start_store --fail 0.1:slow --fail-seed 2
check "every byte is right though some bodies crawl" read_all small
stop_store
start_store --fail 0.2:etag:GetObject --fail-seed 3
check "another ETag is refused, the right bytes come in the end" read_all demo
check "that happened" grep -qE ' stale [1-9]' "$WORK/reader.out"
stop_store
start_store --fail 0.1:503 --fail 0.1:reset --fail 0.1:short --fail 0.1:etag:GetObject --fail-seed 4
check "every byte is right through all of it" read_all demo 3
stop_store
