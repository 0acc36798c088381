#!/usr/bin/env bash
# Two mounts and a load share a cache directory: what one fetched the other reads; when the process that keeps the index is killed, the
# others go on and one of them takes over.
# sanitize
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
cache="$WORK/cache"
mkdir -p "$demo"
for ((i = 0; i < 6; i++)); do head -c 3000000 /dev/urandom >"$demo/large$i"; done
for ((i = 0; i < 60; i++)); do head -c 9000 /dev/urandom >"$demo/small$i"; done
start_store
store=(--endpoint "$STORE_URL" --anonymous)
gets() { store_stat '.requests.GetObject // 0'; }
stat_of() { timeout 30 "$CISTERN" stats "$1" --json | jq -r "$2"; }
saved() { [ "$(stat_of "$1" '.cache.levels[0].saved_bytes + .cache.levels[0].refused_bytes >= .data.bytes_offered')" = true ]; }
owns() { [ "$(stat_of "$1" '.cache.levels[0].owner')" = true ]; }

start_mount oss://demo "$WORK/m1" --cache-dir "$cache" --passthrough=false --log-level debug
first=$MOUNT_PID
start_mount oss://demo "$WORK/m2" --cache-dir "$cache" --passthrough=false
check "the first keeps the index" owns "$WORK/m1"
check_not "the second doesn't" owns "$WORK/m2"
check "the first reads from the store" cmp "$demo/large0" "$WORK/m1/large0"
check "and a small one" cmp "$demo/small0" "$WORK/m1/small0"
check "it is written to the cache" wait_for 20 saved "$WORK/m1"
before=$(gets)
check "the second reads that" cmp "$demo/large0" "$WORK/m2/large0"
check "and the small one" cmp "$demo/small0" "$WORK/m2/small0"
check "without asking the store" equal "$(gets)" "$before"
check "the second reads others" cmp "$demo/large1" "$WORK/m2/large1"
check "they are written to the cache" wait_for 20 saved "$WORK/m2"
before=$(gets)
check "the first reads those" cmp "$demo/large1" "$WORK/m1/large1"
check "without asking the store" equal "$(gets)" "$before"

"$CISTERN" load oss://demo/ --cache-dir "$cache" --quiet "${store[@]}"
check "a load beside them" equal $? 0
before=$(gets)
check "both find it all" bash -c 'diff -r "$1" "$2" && diff -r "$1" "$3"' - "$demo" "$WORK/m1" "$WORK/m2"
check "without asking the store" equal "$(gets)" "$before"

# Readers are busy while the owner dies.
for ((i = 0; i < 4; i++)); do
	(for ((n = 0; n < 5; n++)); do for f in "$demo"/*; do cmp -s "$f" "$WORK/m2/${f##*/}" || exit 1; done; done) &
	readers[i]=$!
done
kill -9 "$first"
wait "$first" 2>/dev/null
umount -l "$WORK/m1"
status=0
for r in "${readers[@]}"; do wait "$r" || status=1; done
check "the other's readers notice nothing" equal "$status" 0
check "the other takes over the index" wait_for 30 owns "$WORK/m2"
before=$(gets)
check "nothing was lost by that" equal "$(timeout 60 "$CISTERN" cache ls --cache-dir "$cache" --output json | jq -s '[.[] | select(.complete)] | length')" 66
start_mount oss://demo "$WORK/m1" --cache-dir "$cache" --passthrough=false
check "a new mount joins" diff -r "$demo" "$WORK/m1"
check "without asking the store" equal "$(gets)" "$before"
check "unmounted" stop_mount
MOUNT_POINT="$WORK/m2"
