#!/usr/bin/env bash
# Known names of one large directory, cold: listed in pages, not asked for one by one; what the first twelve pages don't reach is asked for by HEADs in parallel.
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_fuse

STORE_DIR="$WORK/objects"
mkdir -p "$STORE_DIR/demo/ten" "$STORE_DIR/demo/large"
python3 - "$STORE_DIR/demo" <<'PY'
import sys
for directory, count in (("ten", 10000), ("large", 14500)):
    for i in range(count):
        with open(f"{sys.argv[1]}/{directory}/file-{i:05}", "w") as f:
            f.write("x" * (i % 7))
PY
start_store --latency 20ms
cat >"$WORK/look.py" <<'PY'
import os, random, sys, threading, time
directory, first, last, threads = sys.argv[1], *map(int, sys.argv[2:5])
numbers = list(range(first, last))
if threads > 1:
    random.Random(3).shuffle(numbers)
bad = []
def work(mine):
    for i in mine:
        if os.stat(f"{directory}/file-{i:05}").st_size != i % 7:
            bad.append(i)
start = time.time()
workers = [threading.Thread(target=work, args=(numbers[t::threads],)) for t in range(threads)]
[w.start() for w in workers]
[w.join() for w in workers]
print(f"# {len(numbers)} names by {threads}: {time.time() - start:.3f} s")
sys.exit(1 if bad else 0)
PY
total() { store_stat '[.requests[]] | add // 0'; }
look() { # WHAT MOST DIRECTORY FIRST LAST THREADS
	start_mount oss://demo "$WORK/mnt"
	store_stats_reset
	python3 "$WORK/look.py" "$WORK/mnt/$3" "$4" "$5" "$6" >"$WORK/out"
	check "$1: all are found" equal "$?" 0
	cat "$WORK/out"
	echo "# $(store_stat .requests -c | tr -d '\n ')"
	check "$1: at most $2 requests" test "$(total)" -le "$2"
}
look "10,000 one after another" 12 ten 0 10000 1
check "unmounted" stop_mount
look "10,000 by 16" 12 ten 0 10000 16
check "unmounted" stop_mount
look "64 at the end of 14,500" 90 large 14400 14464 64
check "they were asked for at the same time" test "$(store_stat .max_in_flight)" -ge 32
check "the listing went no further than it had to" test "$(store_stat '.requests.ListObjects // .requests.ListObjectsV2 // 0')" -le 15
check "unmounted" stop_mount
