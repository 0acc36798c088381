#!/usr/bin/env bash
# Two levels, MEM over HDD: what doesn't fit above goes down, what is read again comes up, and statistics tell. A skewed re-read is mostly served
# from MEM.
# timeout: 300
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
mem=$(mktemp -d /dev/shm/cistern-test.XXXXXX) || skip "no /dev/shm"
cleanup "rm -rf '$mem'"
mkdir -p "$demo"
# 480 MB: 120 of 4 MB; 40 fit above, and more than fit into the process's own memory.
for ((i = 0; i < 120; i++)); do head -c 4000000 /dev/urandom >"$demo/$(printf %03d $i)"; done
start_store
mount_it() {
	# Little memory, so that reading again is the cache's work.
	start_mount oss://demo "$mnt" --cache-level "MEM:$mem:200MiB:0.9:0.7" --cache-level "HDD:$WORK/hdd:1GiB:0.95:0.9" --passthrough=false \
		--memory 64MiB -o direct_io "$@"
}
level() { mount_stat ".cache.levels[$1]$2"; }
settled() { [ "$(mount_stat '(.cache.levels[0].entries + .cache.levels[1].entries)')" -ge 120 ]; }

# HDD takes what comes down at the speed of a disk; what comes faster would be dropped.
mount_it --origin-bandwidth 150MiB
check "two levels, in order" equal "$(mount_stat '[.cache.levels[].medium] | join(" ")')" "MEM HDD"
check "all is read once" diff -r "$demo" "$mnt"
check "nothing is lost of it" wait_for 30 settled
echo "#| after the first reading: MEM $(level 0 '| "\(.entries) entries, \(.demoted) demoted, \(.stops_high)/\(.stops_low) stops"'), HDD $(level 1 .entries) entries"
check "MEM keeps to its quota" test "$(level 0 .used)" -le $((200 << 20))
check "it demoted what did not fit" test "$(level 0 .demoted)" -gt 40
check "it began to at its high watermark" test "$(level 0 .stops_high)" -gt 0
check "and stopped at the low one" test "$(level 0 .stops_low)" -gt 0
check "HDD has those" test "$(level 1 .entries)" -gt 40

# Nine of ten reads go to thirty objects (120 MB) that lie below by now.
cat >"$WORK/skewed.py" <<'PY'
import os, random, sys
random.seed(7)
top, source, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
names = sorted(os.listdir(source))
hot, cold = names[:30], names[30:]
for i in range(count):
    name = random.choice(hot) if random.random() < 0.9 else random.choice(cold)
    with open(os.path.join(top, name), "rb", buffering=0) as f:
        data = b""
        while True:
            piece = f.read(1 << 20)
            if not piece:
                break
            data += piece
    with open(os.path.join(source, name), "rb") as f:
        assert f.read() == data, name
PY
store_stats_reset
check "a skewed re-read, right bytes" timeout 100 python3 "$WORK/skewed.py" "$mnt" "$demo" 200
promoted() { [ "$(level 0 .promoted)" -ge 10 ]; }
check "what is read again comes up" wait_for 20 promoted
mem_before=$(level 0 .hit_bytes)
hdd_before=$(level 1 .hit_bytes)
memory_before=$(mount_stat .sources.memory.bytes)
check "and once more" timeout 100 python3 "$WORK/skewed.py" "$mnt" "$demo" 300
mem_hits=$(($(level 0 .hit_bytes) - mem_before))
hdd_hits=$(($(level 1 .hit_bytes) - hdd_before))
own=$(($(mount_stat .sources.memory.bytes) - memory_before))
echo "#| skewed re-read: $((mem_hits >> 20)) MiB from MEM, $((hdd_hits >> 20)) MiB from HDD, $((own >> 20)) MiB from the process's own memory"
check "at least four fifths of what the cache served came from MEM" test $((mem_hits + own)) -ge $(((mem_hits + hdd_hits + own) * 4 / 5))
check "MEM served some of it" test "$mem_hits" -gt 0
check "the store was not asked" equal "$(store_stat '.requests.GetObject // 0')" 0
check "stats for people show both levels" has <("$CISTERN" stats "$mnt") '^ +medium +HDD$'
check "metrics tell demotion" has <("$CISTERN" stats "$mnt" --metrics) '^cistern_cache_[a-z_]*demoted[a-z_]*\{.*\} [1-9]'
check "unmounted" stop_mount

store_stats_reset
mount_it
check "the levels survive the mount" diff -r "$demo" "$mnt"
check "and the store is not asked" equal "$(store_stat '.requests.GetObject // 0')" 0
check "unmounted" stop_mount
