#!/usr/bin/env bash
# The cache directory is deleted under a mount, wholly and in part, and made anew: reads go on with the right bytes, the mount ends well, and the
# next one has a cache again.
# sanitize long
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
cache="$WORK/cache"
mkdir -p "$demo"
for ((i = 0; i < 4; i++)); do head -c 3000000 /dev/urandom >"$demo/large$i"; done
for ((i = 0; i < 50; i++)); do head -c 9000 /dev/urandom >"$demo/small$i"; done
start_store
load() { "$CISTERN" load oss://demo/ --cache-dir "$cache" --endpoint "$STORE_URL" --anonymous --quiet; }

for passthrough in true false; do
	load || fail "the load failed"
	start_mount oss://demo "$mnt" --cache-dir "$cache" --passthrough=$passthrough
	check "passthrough=$passthrough: all is read" diff -r "$demo" "$mnt"
	exec 3<"$mnt/large0"
	head -c 100 <&3 >/dev/null
	rm -rf "$cache"
	check "passthrough=$passthrough: the directory is gone: an open file reads on" cmp <(tail -c +101 "$demo/large0") <(cat <&3)
	exec 3<&-
	check "passthrough=$passthrough: all is read" diff -r "$demo" "$mnt"
	mkdir -m 700 "$cache"
	check "passthrough=$passthrough: it is there again, empty: all is read" diff -r "$demo" "$mnt"
	check "passthrough=$passthrough: stats answer" test -n "$(level_stat .state)"
	check "passthrough=$passthrough: unmounted" stop_mount
	rm -rf "$cache"
done

load || fail "the load failed"
start_mount oss://demo "$mnt" --cache-dir "$cache" --passthrough=false
rm -rf "$cache"/objects/* "$cache"/slabs/*
check "only the data is gone: all is read" diff -r "$demo" "$mnt"
check "unmounted" stop_mount
load || fail "the load failed"
rm -f "$cache/index.log"
start_mount oss://demo "$mnt" --cache-dir "$cache" --passthrough=false
check "the log is gone: all is read" diff -r "$demo" "$mnt"
check "unmounted" stop_mount
load || fail "the load failed"
store_stats_reset
start_mount oss://demo "$mnt" --cache-dir "$cache"
check "in the end the cache is as good as new" diff -r "$demo" "$mnt"
check "nothing is fetched" equal "$(store_stat '.requests.GetObject // 0')" 0
check "unmounted" stop_mount
