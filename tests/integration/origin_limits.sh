#!/usr/bin/env bash
# --origin-bandwidth and --origin-requests cap what the store is asked for; parallel_count caps the requests of one file; statistics tell.
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
mkdir -p "$demo/many"
head -c 30000000 /dev/urandom >"$demo/big"
for ((i = 0; i < 60; i++)); do head -c 2000 /dev/urandom >"$demo/many/$i"; done
start_store --latency 2ms
milliseconds() { # COMMAND…
	local start
	start=$(date +%s%N)
	"$@" || fail "$*"
	echo $((($(date +%s%N) - start) / 1000000))
}

# 30 MB at 8 MiB/s are 3.6 s; what a burst lets through at once is taken off.
start_mount oss://demo "$mnt" --origin-bandwidth 8MiB
took=$(milliseconds cmp "$demo/big" "$mnt/big")
echo "#| 28.6 MiB at 8 MiB/s took $took ms"
check "bandwidth is capped" test "$took" -ge 2200
check "stats tell that requests waited" test "$(mount_stat .requests.limited)" -gt 0
check "unmounted" stop_mount

# 60 files at 20 requests a second are 3 s.
start_mount oss://demo "$mnt" --origin-requests 20 --look-ahead=false
ls "$mnt/many" >/dev/null
took=$(milliseconds diff -r "$demo/many" "$mnt/many")
echo "#| 60 GETs at 20 a second took $took ms"
check "requests are capped" test "$took" -ge 1800
check "stats tell that requests waited" test "$(mount_stat .requests.limited)" -gt 0
check "unmounted" stop_mount

took=$(milliseconds "$CISTERN" load oss://demo/big --cache-dir "$WORK/cache" --origin-bandwidth 8MiB --endpoint "$STORE_URL" --anonymous --quiet)
echo "#| a load of 28.6 MiB at 8 MiB/s took $took ms"
check "a load's bandwidth is capped" test "$took" -ge 2200

store_stats_reset
start_mount oss://demo "$mnt" -o parallel_count=2 --hedge=false
check "parallel_count=2" cmp "$demo/big" "$mnt/big"
# What a READ waits for is not counted among them: one more.
check "no more than that, and what the reader waits for, at a time" test "$(store_stat .max_in_flight)" -le 4
check "unmounted" stop_mount
