#!/usr/bin/env bash
# Bytes of the cache are flipped and files cut, while it is mounted and while not: the right bytes come all the same, what was bad is counted, dropped
# and fetched again; `cistern cache verify` finds the rest.
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
for ((i = 0; i < 6; i++)); do head -c 3000000 /dev/urandom >"$demo/large$i"; done
for ((i = 0; i < 50; i++)); do head -c 9000 /dev/urandom >"$demo/small$i"; done
start_store
load() { "$CISTERN" load oss://demo/ --cache-dir "$cache" --endpoint "$STORE_URL" --anonymous --quiet || fail "the load failed"; }
mount_it() { start_mount oss://demo "$mnt" --cache-dir "$cache" --passthrough=false; }
damage() { # KIND PATTERN: every file that matches
	python3 - "$cache" "$@" <<'PY'
import fnmatch, os, sys
top, kind, pattern = sys.argv[1:]
count = 0
for dir, _, names in os.walk(top):
    for name in fnmatch.filter(names, pattern):
        path = os.path.join(dir, name)
        size = os.path.getsize(path)
        os.chmod(path, 0o600)
        with open(path, "r+b") as f:
            if kind == "flip":      # one byte of every 200 kB
                for at in range(5000, size, 200000):
                    f.seek(at)
                    b = f.read(1)
                    f.seek(at)
                    f.write(bytes([b[0] ^ 0x40]))
            elif kind == "cut":
                f.truncate(size // 2)
            elif kind == "zero":
                f.write(b"\0" * min(size, 64))
            elif kind == "empty":
                f.truncate(0)
        count += 1
assert count > 0, "no file matches"
PY
}

# While nothing has the cache open.
for what in "flip *.data" "cut *.data" "flip *.map" "cut *.map" "zero *.map" "empty *.map" "flip *.slab" "cut *.slab" "empty *.slab" "flip index.log" \
	"cut index.log" "zero index.log"; do
	load
	read -r kind pattern <<<"$what"
	damage "$kind" "$pattern" || fail "$what"
	mount_it
	check "$what, unmounted: the right bytes" diff -r "$demo" "$mnt"
	[ "$kind $pattern" = "flip *.data" ] && check "what was bad is counted" test "$(level_stat .corrupt)" -gt 0
	check "unmounted" stop_mount
done

# Under the mount.
load
for what in "flip *.data" "flip *.map" "flip *.slab" "zero *.map" "cut *.data"; do
	mount_it
	cat "$mnt/large0" >/dev/null
	read -r kind pattern <<<"$what"
	damage "$kind" "$pattern" || fail "$what"
	check "$what, mounted: the right bytes" diff -r "$demo" "$mnt"
	check "unmounted" stop_mount
	load
done

damage flip '*.data'
verify() {
	local status=0
	timeout 60 "$CISTERN" cache verify --cache-dir "$cache" >"$WORK/verify" || status=$?
	cat "$WORK/verify"
	equal "$status" "$1"
}
check "verify finds what is bad, and exits 1" verify 1
check "it names it" has "$WORK/verify" '^bad: oss://demo/large[0-5] block [0-9]+'
check "then there is nothing bad any more" verify 0
store_stats_reset
load
check "a load fetches what was dropped" test "$(store_stat '.requests.GetObject // 0')" -gt 0
mount_it
check "the right bytes" diff -r "$demo" "$mnt"
check "unmounted" stop_mount

# Passed through, nothing checks the bytes but verify; what it drops no new open gets, though an old one still has it.
start_mount oss://demo "$mnt" --cache-dir "$cache"
if [ "$(mount_stat .passthrough)" = on ]; then
	exec 3<"$mnt/large0"
	damage flip '*.data'
	check "verify finds it under a file that is open" verify 1
	# Its file is removed a moment after verify has answered.
	check "the right bytes for who opens it now" wait_for 20 cmp "$demo/large0" "$mnt/large0"
	exec 3<&-
fi
check "unmounted" stop_mount
