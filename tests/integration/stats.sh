#!/usr/bin/env bash
# What `cistern stats` tells: JSON with all sections, a table for people, metrics that a Prometheus can read and that grow.
# sanitize long
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
mkdir -p "$demo"
head -c 3000000 /dev/urandom >"$demo/a"
head -c 1000 /dev/urandom >"$demo/b"
start_store
start_mount oss://demo "$mnt" --cache-dir "$WORK/cache:1GiB" --passthrough=false --metrics-listen 127.0.0.1:0 --log-level debug
cat "$mnt/a" "$mnt/b" >/dev/null
stats() { "$CISTERN" stats "$mnt" "$@"; }

stats --json >"$WORK/json"
check "the sections" equal "$(jq -r 'keys | join(" ")' "$WORK/json")" \
	"cache connections credentials data files kernel loads log mode mountpoint opens passthrough pid requests source sources store supervisor uptime_s version"
check "a level has all its counters" equal "$(jq -r '.cache.levels[0] | keys | join(" ")' "$WORK/json")" \
	"corrupt demoted entries evicted hit_bytes hits level medium owner paths pinned promoted quota refused_bytes saved_bytes state stops_high stops_low used"
check "the level is the one that was asked for" equal "$(jq -r '.cache.levels[0] | "\(.paths) \(.quota) \(.state) \(.owner)"' "$WORK/json")" "$WORK/cache 1073741824 ok true"
check "bytes come from the store" jq -e '.sources.origin.bytes == 3001000 and .data.bytes_read == 3001000' "$WORK/json"
check "shares add up to all" jq -e '[.sources[].percent] | add > 99 and add < 101' "$WORK/json"
check "opens by mode" jq -e '.opens == {"passthrough": 0, "page_cache": 2, "direct_io": 0}' "$WORK/json"
check "why there is no passthrough" jq -e '.passthrough == "off: by option"' "$WORK/json"
check "hedges, limits and parallelism" jq -e '(.requests | has("hedges") and has("hedge_wins") and has("limited")) and .data.parallel > 0' "$WORK/json"

stats >"$WORK/text"
check "for people: the level" has "$WORK/text" '^ +paths +.*/cache$'
check "for people: sizes" has "$WORK/text" '^ +quota +1\.00GiB \(1073741824\)$'
check "for people: where bytes came from" has "$WORK/text" '^ +origin +2\.86MiB, [0-9.]+ %$'

cat >"$WORK/metrics.py" <<'PY'
import re, sys
names, types, seen = {}, {}, set()
for line in sys.stdin.read().splitlines():
    m = re.fullmatch(r"# (HELP|TYPE) ([a-z_]+) (.+)", line)
    if m:
        assert (m[1], m[2]) not in seen, "twice: " + line
        seen.add((m[1], m[2]))
        if m[1] == "TYPE":
            types[m[2]] = m[3]
        continue
    m = re.fullmatch(r'([a-z_]+)(\{[a-z_]+="[^"\\]*"(?:,[a-z_]+="[^"\\]*")*\})? (-?[0-9.e+]+)', line)
    assert m, "not a sample: " + line
    base = re.sub("_(bucket|sum|count)$", "", m[1])
    assert m[1] in types or base in types, "no type: " + line
    assert types.get(m[1]) != "counter" or m[1].endswith("_total"), "a counter's name ends in _total: " + line
    assert (m[1], m[2]) not in names, "twice: " + line
    names[m[1], m[2]] = float(m[3])
for wanted in sys.argv[1:]:
    assert any(n == wanted and v > 0 for (n, _), v in names.items()), "missing or 0: " + wanted
PY
metrics() { stats --metrics | python3 "$WORK/metrics.py" "$@"; }
check "metrics are well formed, and those of all layers are there" metrics cistern_data_bytes_read_total cistern_data_bytes_fetched_total \
	cistern_requests_get_total cistern_opens_page_cache_total cistern_kernel_requests_total cistern_files_reads_total cistern_connections_open \
	cistern_data_parallel cistern_cache_quota_bytes
check "the cache's metrics" has <(stats --metrics) '^cistern_cache_[a-z_]+\{level="0"'
check "unmounted" stop_mount
