#!/usr/bin/env bash
# sanitize long
# With attributes=object 16 concurrent lookups of distinct names in one directory go to the store at once, not one after another.
. "$(dirname "$0")/lib.sh"
requires curl jq python3
requires_root
requires_fuse

STORE_DIR=$WORK/objects
mkdir -p "$STORE_DIR/demo/dir"
for ((i = 0; i < 16; i++)); do
	echo "$i" >"$STORE_DIR/demo/dir/name-$i"
done
start_store --latency 300ms
start_mount oss://demo "$WORK/mnt" -o attributes=object
stat "$WORK/mnt/dir" >/dev/null
store_stats_reset
check "all 16 are found" python3 - "$WORK/mnt/dir" <<'PY'
import os, sys, threading
directory = sys.argv[1]
barrier, found = threading.Barrier(16), []
def look(i):
    barrier.wait()
    found.append(os.stat(f"{directory}/name-{i}").st_size)
threads = [threading.Thread(target=look, args=(i,)) for i in range(16)]
for t in threads: t.start()
for t in threads: t.join()
assert len(found) == 16 and all(2 <= size <= 3 for size in found), found
PY
most=$(store_stat .max_in_flight)
heads=$(store_stat '(.requests.HeadObject // 0) + (.requests.GetObjectMeta // 0)')
lists=$(store_stat '.requests.ListObjects // 0')
echo "# max_in_flight $most, HEADs $heads, listings $lists"
check "they were asked for at the same time" test "$most" -ge 16
check "with one HEAD a name" test "$heads" -le 17
check "unmounts" stop_mount
