#!/usr/bin/env bash
# What is admitted and kept: s3fifo, stream and pin; --cache-finish; direct_read; del_cache; objects that changed.
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
for ((i = 0; i < 10; i++)); do head -c 4000000 /dev/urandom >"$demo/f$i"; done
start_store
mount_it() { start_mount oss://demo "$mnt" --cache-dir "$cache${QUOTA:+:$QUOTA}" --cache-keep-free 1MiB --passthrough=false "$@"; }
load() { "$CISTERN" load "$@" --cache-dir "$cache" --endpoint "$STORE_URL" --anonymous --quiet; }
listed() { timeout 60 "$CISTERN" cache ls "$@" --cache-dir "$cache" --output json; }
complete() { [ "$(listed "oss://demo/$1" | jq -s '[.[] | select(.complete)] | length')" = "${2:-1}" ]; }
settled() { [ "$(mount_stat '.data.bytes_offered == .data.bytes_saved + .cache.levels[0].refused_bytes')" = true ]; }

# stream
mount_it --cache-policy stream
check "stream: all is read" diff -r "$demo" "$mnt"
check "stream: nothing is added" equal "$(level_stat .entries)" 0
check "stream: stats tell the policy" equal "$(mount_stat .cache.policy)" stream
check "unmounted" stop_mount
load oss://demo/f0 || fail "the load failed"
store_stats_reset
mount_it --cache-policy stream
check "stream: what is there is used" cmp "$demo/f0" "$mnt/f0"
check "stream: without the store" equal "$(store_stat '.requests.GetObject // 0')" 0
check "unmounted" stop_mount

# direct_read
mount_it -o direct_read
check "direct_read: all is read" diff -r "$demo" "$mnt"
check "direct_read: nothing is added" equal "$(level_stat .entries)" 1
check "direct_read: a load of the mount adds" "$CISTERN" load "$mnt/f1" --quiet
check "direct_read: it is there" complete f1
check "unmounted" stop_mount

# partly read
"$CISTERN" cache drop --all --cache-dir "$cache" >/dev/null
mount_it --cache-finish=false --prefetch=false
dd if="$mnt/f2" of=/dev/null bs=128k count=4 2>/dev/null
wait_for 20 settled
check "partly read, not to be finished: a part is there" equal "$(listed oss://demo/f2 | jq '.cached > 0 and .cached < 4000000')" true
check "unmounted" stop_mount
check "and stays a part" equal "$(listed oss://demo/f2 | jq '.complete')" false
mount_it
dd if="$mnt/f2" of=/dev/null bs=1M count=3 2>/dev/null
check "after use the rest is fetched in the background" wait_for 30 complete f2
before=$(store_stat .requests.GetObject)
check "then it is read without the store" cmp "$demo/f2" "$mnt/f2"
check "no GET" equal "$(store_stat .requests.GetObject)" "$before"

# changed
printf 'another version' >"$demo/f2"
touch "$demo/f2"
"$CISTERN" load oss://demo/f2 --cache-dir "$cache" --endpoint "$STORE_URL" --anonymous --quiet || fail "the load failed"
one_version() { [ "$(listed oss://demo/f2 | jq -s -c '[.[].size]')" = "[15]" ]; }
check "of an object that changed only the new version is kept" wait_for 20 one_version
check "unmounted" stop_mount

# pin: 16 MiB hold three or four of them, and the first stay.
"$CISTERN" cache drop --all --cache-dir "$cache" >/dev/null
QUOTA=16MiB mount_it --cache-policy pin --direct_io
for ((i = 3; i < 10; i++)); do cmp "$demo/f$i" "$mnt/f$i" || fail "wrong bytes"; done
wait_for 20 settled
check "pin: the first are there" complete f3
check "pin: nothing was evicted" equal "$(level_stat .evicted)" 0
check "pin: what did not fit was refused" test "$(level_stat .refused_bytes)" -gt 0
check "unmounted" stop_mount

# del_cache
load oss://demo/ || fail "the load failed"
check "before: all is there" complete '' 10
mount_it -o del_cache
check "del_cache: dropped at the start" equal "$(level_stat .entries)" 0
check "del_cache: all is read" diff -r "$demo" "$mnt"
check "unmounted" stop_mount
check "del_cache: dropped at the end" equal "$(listed | jq -s length)" 0
