#!/usr/bin/env bash
# Small files opened in the order of the listing are fetched ahead, one GET each; in another order, or switched off, they are not.
# timeout: 240
# sanitize
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
mkdir -p "$demo/d"
python3 - "$demo/d" <<'PY'
import sys
for i in range(600):
    with open(f"{sys.argv[1]}/file-{i:05}", "wb") as f:
        f.write(b"%05d" % i * 4000)
PY
start_store --latency 10ms

cat >"$WORK/read.py" <<'PY'
# 16 threads take the files in turn.
import os, random, sys, threading
directory, order = sys.argv[1:3]
with os.scandir(directory) as entries:
    names = [e.name for e in entries if e.stat().st_size == 20000]
assert len(names) == 600, len(names)
if order == "shuffled":
    random.Random(5).shuffle(names)
lock, bad = threading.Lock(), []
turn = iter(names)
def work():
    while True:
        with lock:
            name = next(turn, None)
        if name is None:
            return
        with open(f"{directory}/{name}", "rb", buffering=0) as f:
            if f.read(30000) != name[5:].encode() * 4000:
                bad.append(name)
threads = [threading.Thread(target=work) for _ in range(16)]
[t.start() for t in threads]
[t.join() for t in threads]
assert not bad, bad
PY
run() { # WHAT ORDER [OPTIONS…]
	local what=$1 order=$2
	shift 2
	start_mount oss://demo "$mnt" --hedge=false "$@"
	store_stats_reset
	check "$what: the bytes" timeout 60 python3 "$WORK/read.py" "$mnt/d" "$order"
	check "$what: one GET a file" equal "$(store_stat .requests.GetObject)" 600
	ahead=$(mount_stat .files.looked_ahead)
}
run "in order" listing
check "most were fetched ahead" test "$ahead" -ge 450
check "read again: no GET" timeout 60 python3 "$WORK/read.py" "$mnt/d" listing
check "none at all" equal "$(store_stat .requests.GetObject)" 600
check "unmounted" stop_mount
run "shuffled" shuffled
check "hardly any was fetched ahead" test "$ahead" -le 60
check "unmounted" stop_mount
run "switched off" listing --look-ahead=false
check "none was fetched ahead" equal "$ahead" 0
check "unmounted" stop_mount
run "with a cache" listing --cache-dir "$WORK/cache:1GiB" 
check "most were fetched ahead" test "$ahead" -ge 450
check "unmounted" stop_mount
start_mount oss://demo "$mnt" --cache-dir "$WORK/cache:1GiB"
store_stats_reset
check "from the cache: the bytes" timeout 60 python3 "$WORK/read.py" "$mnt/d" listing
check "no GET" equal "$(store_stat '.requests.GetObject // 0')" 0
check "nothing to fetch ahead" equal "$(mount_stat .files.looked_ahead)" 0
check "unmounted" stop_mount
