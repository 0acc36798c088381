#!/usr/bin/env bash
# `cistern cache` ls, stat, verify, drop, pin and unpin, while a mount uses the directory and while none does.
# sanitize long
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
mnt="$WORK/mnt"
cache="$WORK/cache"
mkdir -p "$STORE_DIR/demo/a" "$STORE_DIR/demo/b" "$STORE_DIR/demo2"
for ((i = 0; i < 5; i++)); do head -c $((1000000 + i)) /dev/urandom >"$STORE_DIR/demo/a/$i"; done
for ((i = 0; i < 5; i++)); do head -c $((1000 + i)) /dev/urandom >"$STORE_DIR/demo/b/small $i"; done
head -c 2000000 /dev/urandom >"$STORE_DIR/demo2/x"
start_store
store=(--endpoint "$STORE_URL" --anonymous)
cache() { timeout 60 "$CISTERN" cache "$@" --cache-dir "$WORK/cache"; }
entries() { cache ls "$@" --output json | jq -s length; }
load() { timeout 60 "$CISTERN" load "$@" --cache-dir "$cache" --quiet "${store[@]}"; }
exits() { # STATUS COMMAND…
	local wanted=$1 status=0
	shift
	"$@" >"$WORK/out" 2>"$WORK/err" || status=$?
	cat "$WORK/out" "$WORK/err"
	equal "$status" "$wanted"
}

check "a cache that isn't there is a failure" exits 1 cache ls
load oss://demo/a/ oss://demo/b/ oss://demo2/x || fail "the load failed"

all_commands() { # HOW
	check "$1: ls shows all" equal "$(entries)" 11
	check "$1: ls of a bucket: not of one whose name begins alike" equal "$(entries oss://demo)" 10
	check "$1: ls of a prefix" equal "$(entries oss://demo/b/small)" 5
	check "$1: a line for people" has <(cache ls oss://demo/a/3) '^ *976\.57KiB 100\.0 % 0:[A-Z]{3} c.. oss://demo/a/3$'
	check "$1: with details: when and which version" has <(cache ls -l oss://demo/a/3) ' 20[0-9-]{8}T[0-9:]{5}Z [0-9A-F-]+ +oss://demo/a/3$'
	check "$1: an entry for programs" equal "$(cache ls 'oss://demo/b/small 2' --output json | jq -c '[.bucket, .key, .size, .cached, .complete, .pinned]')" \
		'["oss://demo","b/small 2",1002,1002,true,false]'
	check "$1: stat adds up" equal "$(cache stat --output json | jq -s '[.[0].entries, .[0].bytes, .[0].complete] | tostring')" '"[11,7005020,11]"'
	check "$1: stat of a prefix" equal "$(cache stat oss://demo/b/ --output json | jq -s '.[0].entries')" 5
	check "$1: stat for people" has <(cache stat) 'entries +11, .* of .* cached \(100\.0 %\)'
	check "$1: verify finds nothing bad" exits 0 cache verify
	check "$1: it read all of it" has "$WORK/out" '^Read 11 entries, 6\.68MiB: 0 bad blocks'
	check "$1: pin" has <(cache pin oss://demo/a/) '^Pinned 5 entries'
	check "$1: pinned entries say so" equal "$(cache ls --output json | jq -s '[.[] | select(.pinned)] | length')" 5
	check "$1: unpin" has <(cache unpin oss://demo/a/) '^Unpinned 5 entries'
	check "$1: none is pinned" equal "$(cache ls --output json | jq -s '[.[] | select(.pinned)] | length')" 0
	check "$1: drop needs a prefix or --all" exits 2 cache drop
	check "$1: drop of one" has <(cache drop oss://demo/a/4) '^Dropped 1 entry'
	check "$1: it is gone" equal "$(entries)" 10
	load oss://demo/a/4
	check "$1: and can be loaded again" equal "$(entries)" 11
}

all_commands "no mount"
check "a rate is kept" bash -c 's=$(date +%s%N); timeout 60 "$1" cache verify oss://demo/a/ --rate 4MiB --cache-dir "$2" >/dev/null; [ $(($(date +%s%N) - s)) -gt 500000000 ]' \
	- "$CISTERN" "$cache"
start_mount oss://demo "$mnt" --cache-dir "$cache" --passthrough=false
all_commands "a mount owns the cache"
exec 3<"$mnt/a/0"
head -c 10 <&3 >/dev/null
check "an open file is in use" equal "$(cache ls oss://demo/a/0 --output json | jq .in_use)" true
check "dropping it leaves it readable" bash -c '"$1" cache drop oss://demo/a/0 --cache-dir "$2" >/dev/null && cmp <(tail -c +11 "$3") <(cat <&3)' \
	- "$CISTERN" "$cache" "$STORE_DIR/demo/a/0"
exec 3<&-
check "pin holds for what comes later" has <(cache pin oss://demo2/ && cache drop oss://demo2/ && load oss://demo2/x && cache ls oss://demo2/) ' cp. oss://demo2/x'
check "drop --all" has <(cache drop --all) '^Dropped [0-9]+ entries'
check "nothing is there" equal "$(entries)" 0
check "the mount reads on" diff -r "$STORE_DIR/demo" "$mnt"
check "unmounted" stop_mount

check "no cache named" exits 2 "$CISTERN" cache ls
check "an action that doesn't exist" exits 2 cache rm
check "a prefix that is no URL" exits 2 cache ls demo/a
check "no action" exits 2 "$CISTERN" cache
