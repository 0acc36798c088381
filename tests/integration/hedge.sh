#!/usr/bin/env bash
# timeout: 200
# Some bodies crawl: what is missing is asked for a second time, at a few per cent more requests, and no reader waits for the crawl.
. "$(dirname "$0")/lib.sh"
requires curl jq python3
requires_root
requires_fuse

STORE_DIR=$WORK/objects
FILES=500
mkdir -p "$STORE_DIR/demo"
head -c 131072 /dev/urandom >"$WORK/content"
for ((i = 0; i < FILES; i++)); do
	{ echo "$i" && cat "$WORK/content"; } >"$STORE_DIR/demo/$i"
done

# At 16 KiB/s such a body takes 8 s.
cat >"$WORK/read.py" <<'EOF'
import sys, time
mnt, objects, files = sys.argv[1], sys.argv[2], int(sys.argv[3])
took = []
for i in range(files):
    began = time.monotonic()
    with open(f"{mnt}/{i}", "rb") as file:
        data = file.read()
    took.append(time.monotonic() - began)
    with open(f"{objects}/{i}", "rb") as file:
        if file.read() != data:
            sys.exit(f"wrong bytes in {i}")
took.sort()
print(f"# p50 {took[len(took) // 2] * 1e3:.1f} ms, p99 {took[len(took) * 99 // 100] * 1e3:.1f} ms, max {took[-1] * 1e3:.1f} ms")
sys.exit(took[-1] > 5)
EOF

start_store --latency 10ms --bandwidth 90MiB --fail 0.015:slow:GetObject --fail-seed 5
start_mount oss://demo "$WORK/mnt" --look-ahead=false
ls "$WORK/mnt" >/dev/null
read_all() { timeout 150 python3 "$WORK/read.py" "$WORK/mnt" "$STORE_DIR/demo" "$FILES" >"$WORK/read.out"; }
check "no read waits for a body that crawls" read_all
cat "$WORK/read.out"
crawled=$(store_stat '[.faults // {} | .. | numbers] | add // 0')
hedges=$(mount_stat .requests.hedges)
wins=$(mount_stat .requests.hedge_wins)
asked=$(store_stat .requests.GetObject)
echo "# $crawled bodies crawled, $hedges second requests, $wins of them won, $asked GETs for $FILES files"
check "bodies did crawl" test "$crawled" -ge 3
check "the second requests won" test "$wins" -ge 3
check "at most 5 % more requests, and the two that may be had in advance" test "$asked" -le $((FILES + FILES / 20 + 2))
check "unmounts" stop_mount
stop_store
