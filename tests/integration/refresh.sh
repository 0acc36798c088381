#!/usr/bin/env bash
# cistern refresh: what changed in the store shows at once to programs that run, whatever the timeouts; what is open keeps its version; what is mounted inside
# stays; requests that hang delay nothing.
# timeout: 240
# sanitize
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
mkdir -p "$demo/d/deep/below" "$demo/other" "$demo/place"
for i in $(seq 40); do echo "same $i" >"$demo/d/same-$i"; done
echo "one" >"$demo/d/changes"
echo "to go" >"$demo/d/goes"
echo "deep" >"$demo/d/deep/below/leaf"
echo "other" >"$demo/other/file"
echo "marker" >"$demo/place/marker"
start_store
python3 -u "$TESTS/integration/mocks/stall_proxy.py" "$STORE_ADDRESS" >"$WORK/proxy.out" 2>"$WORK/proxy.log" &
PROXY_PID=$!
cleanup "stop_process $PROXY_PID"
wait_for 10 grep -q listening "$WORK/proxy.out" || fail "the proxy did not start"

long=(--attr-timeout 7200 --entry-timeout 7200 --list-timeout 7200 --negative-timeout 7200)
refresh() { timeout 30 "$CISTERN" refresh "$@"; }
STORE_URL_DIRECT=$STORE_URL
STORE_URL=$(sed -n 's/^listening on //p' "$WORK/proxy.out")
start_mount oss://demo "$mnt" "${long[@]}" -o kernel_readdir_cache_timeout=7200
STORE_URL=$STORE_URL_DIRECT

# A program that follows a file as tail -F does: stats it, opens it again when it is another one.
cat >"$WORK/follow.py" <<'PY'
import os, sys
path = sys.argv[1]
for line in sys.stdin:
    with open(path, "rb") as f:
        print(os.stat(path).st_size, f.read().decode().strip(), flush=True)
PY
coproc FOLLOW { exec timeout 120 python3 "$WORK/follow.py" "$mnt/d/changes"; }
follow() {
	echo >&"${FOLLOW[1]}"
	read -r -t 20 answer <&"${FOLLOW[0]}"
	echo "$answer"
}
shown() { (cd "$mnt/d" && printf '%s ' *comes *goes *newdir | sed 's/\*[a-z]* //g'); }
ls_lR() { (cd "$mnt" && find . -type f | LC_ALL=C sort | xargs -d '\n' stat -c '%n %s' >/dev/null); }
check "all is known" ls_lR
check "the reader sees the first version" equal "$(follow)" "4 one"
check "a name that isn't there" test ! -e "$mnt/d/comes"
exec 4<"$mnt/d/changes"
same_ino=$(stat -c %i "$mnt/d/same-1")
old_ino=$(stat -c %i "$mnt/d/changes")
store_stats_reset
check "nothing changed: the summary says so" equal "$(refresh "$mnt")" "6 directories listed: 0 changed, 0 new, 0 gone"
check "one request a directory" equal "$(store_stat '[.requests[]] | add')" 6

echo "second version" >"$demo/d/changes"
echo "new" >"$demo/d/comes"
mkdir "$demo/d/newdir" && echo "x" >"$demo/d/newdir/x"
rm "$demo/d/goes"
check "not seen yet" equal "$(follow) $(shown)" "4 one goes "
check "the refresh tells what changed" equal "$(refresh "$mnt" --output json)" \
	'{"directories": 6, "changed": 1, "new": 2, "gone": 1, "failed": 0}'
check "the reader sees the new version" equal "$(follow)" "15 second version"
check "stat, too" equal "$(stat -c %s "$mnt/d/changes")" 15
check "it is another file" test "$(stat -c %i "$mnt/d/changes")" != "$old_ino"
check "an unchanged one is not" equal "$(stat -c %i "$mnt/d/same-1")" "$same_ino"
check "a name that wasn't there is" equal "$(cat "$mnt/d/comes")" new
check "so is a directory" equal "$(cat "$mnt/d/newdir/x")" x
check "what was deleted is not" test ! -e "$mnt/d/goes"
check "the listing shows it" equal "$(shown)" "comes newdir "
check "the open file is what it was" equal "$(cat <&4)" one
exec 4<&-

# A part of it.
echo "third version!" >"$demo/d/changes"
echo "another" >"$demo/other/file"
echo "leaf 2" >"$demo/d/deep/below/leaf"
check "a file" equal "$(refresh "$mnt" d/changes)" "0 directories listed: 1 changed, 0 new, 0 gone"
check "shows at once" equal "$(follow)" "15 third version!"
check "others don't" equal "$(stat -c %s "$mnt/other/file" "$mnt/d/deep/below/leaf" | tr '\n' ' ')" "6 5 "
check "a directory and what is below" equal "$(refresh "$mnt" "$mnt/d")" "4 directories listed: 1 changed, 0 new, 0 gone"
check "shows at once" equal "$(stat -c %s "$mnt/other/file") $(cat "$mnt/d/deep/below/leaf")" "6 leaf 2"
echo "made" >"$demo/other/made"
rm "$demo/other/file"
check "a file that was made" equal "$(refresh "$mnt" other/made)" "0 directories listed: 0 changed, 1 new, 0 gone"
check "a file that was deleted" equal "$(refresh "$mnt" ./other//file)" "0 directories listed: 0 changed, 0 new, 1 gone"
check "both show" equal "$(ls "$mnt/other") $(cat "$mnt/other/made") $(test -e "$mnt/other/file" || echo gone)" "made made gone"

# Mistakes.
check "a path below the mountpoint alone" equal "$(refresh "$mnt/d/deep")" "2 directories listed: 0 changed, 0 new, 0 gone"
check "a name that is nowhere" has <(refresh "$mnt" nowhere 2>&1; echo "status $?") 'neither the mount nor the store knows it'
check "status 1" has <(refresh "$mnt" nowhere 2>&1; echo "status $?") '^status 1'
check "a path elsewhere is a mistake" has <(refresh "$mnt" /etc/passwd 2>&1; echo "status $?") '^status 2'
check "no mount" has <(refresh "$WORK" 2>&1; echo "status $?") 'no cistern of this user serves'

# Reads and lookups that hang, in the same directory.
mkdir "$demo/h"
echo 1 >"$demo/h/a"
head -c 1000 /dev/zero >"$demo/h/stall-read"
mkdir "$demo/q"
echo 1 >"$demo/q/a"
echo 1 >"$demo/q/hang"
refresh "$mnt" >/dev/null
check "listed" ls "$mnt/h"
check "seen" equal "$(cat "$mnt/h/a")" 1
echo "a longer one" >"$demo/h/a"
cat "$mnt/h/stall-read" >/dev/null 2>&1 &
reader=$!
timeout 60 stat -c %s "$mnt/q/hang" >"$WORK/hang.out" 2>&1 &
looker=$!
cleanup "kill $reader $looker 2>/dev/null"
stalled() { [ "$(curl -fsS "$(sed -n 's/^listening on //p' "$WORK/proxy.out")/-/stalled")" -ge "$1" ]; }
check "a read and a lookup hang" wait_for 10 stalled 2
start=$(date +%s%N)
check "a refresh beside the read" has <(refresh "$mnt" h) '1 changed, 0 new, 0 gone'
check "one beside the lookup" has <(refresh "$mnt" q/a) '1 directory listed: 0 changed, 1 new, 0 gone'
check "and of all" refresh "$mnt"
check "none has waited" test $((($(date +%s%N) - start) / 1000000)) -lt 5000
check "the change shows at once" equal "$(timeout 10 cat "$mnt/h/a") $(timeout 10 cat "$mnt/q/a")" "a longer one 1"
check "the reader still waits" kill -0 "$reader"
check "the lookup has its answer from the listing" wait "$looker"
check "the right one" equal "$(cat "$WORK/hang.out")" 2
kill "$reader" 2>/dev/null

# A mount point inside.
if [ "$(id -u)" = 0 ]; then
	mkdir "$WORK/bound" && echo inside >"$WORK/bound/file"
	mount --bind "$WORK/bound" "$mnt/place" || fail "no bind mount"
	cleanup "umount -l '$mnt/place' 2>/dev/null"
	mkdir "$demo/many"
	printf '%s\n' {1..6000} | (cd "$demo/many" && xargs touch)
	refresh "$mnt" >/dev/null
	(cd "$mnt/many" && printf '%s\n' {1..6000} | xargs stat -c %s >/dev/null)
	check "mounted inside" equal "$(cat "$mnt/place/file")" inside
	echo "changed" >"$demo/place/marker"
	echo "y" >"$demo/y"
	python3 - "$demo/many" <<'PY'
import sys
for i in range(1, 6001):
    with open(f"{sys.argv[1]}/{i}", "w") as f:
        f.write("changed")
PY
	check "more changes than are told at once" has <(refresh "$mnt") '6001 changed, 1 new, 0 gone'
	check "all show" equal "$(cd "$mnt/many" && printf '%s\n' {1..6000} | xargs stat -c %s | sort | uniq -c | tr -s ' ')" " 6000 7"
	check_not "no message was lost" grep -q 'found the queue full' "$MOUNT_LOG"
	refresh "$mnt" place >/dev/null
	check "a new name beside it" equal "$(cat "$mnt/y")" y
	check "still mounted" equal "$(cat "$mnt/place/file")" inside
	check "in the table too" grep -q " $mnt/place " /proc/mounts
	umount "$mnt/place"
	check "below it the new version" equal "$(cat "$mnt/place/marker")" changed
fi

# The store is gone: the failure is told, what is known stays.
store_pid=$STORE_PID
eval "exec ${FOLLOW[1]}>&-"
check "unmounted" stop_mount
STORE_URL=$STORE_URL_DIRECT
start_mount oss://demo "$mnt" "${long[@]}" --deadline 2s
check "known" ls_lR
stop_process "$store_pid"
check "a store that is gone: status 1 and why" has <(refresh "$mnt" 2>&1; echo "status $?") '^status 1'
check "what was known stays" equal "$(stat -c %s "$mnt/d/changes")" 15
check "unmounted" stop_mount

# A file that the kernel reads from the cache by itself.
unset STORE_DIR
start_store
mkdir -p "$STORE_DIR/demo"
head -c 6000000 /dev/urandom >"$WORK/old"
head -c 7000000 /dev/urandom >"$WORK/new"
cp "$WORK/old" "$STORE_DIR/demo/big"
"$CISTERN" load oss://demo/ --cache-dir "$WORK/cache" --quiet --endpoint "$STORE_URL" --anonymous || fail "the load failed"
start_mount oss://demo "$mnt" "${long[@]}" --cache-dir "$WORK/cache"
check "the old bytes" cmp "$WORK/old" "$mnt/big"
exec 5<"$mnt/big"
[ "$(mount_stat .passthrough)" != on ] || check "passed through" test "$(mount_stat .opens.passthrough)" -ge 2
cp "$WORK/new" "$STORE_DIR/.new" && mv "$STORE_DIR/.new" "$STORE_DIR/demo/big"
check "replaced while it is open" has <(refresh "$mnt") '1 directory listed: 1 changed, 0 new, 0 gone'
check "its size by name" equal "$(stat -c %s "$mnt/big")" 7000000
check "a new open has the new bytes" cmp "$WORK/new" "$mnt/big"
check "the old handle the old ones" cmp "$WORK/old" - <&5
exec 5<&-
check "unmounted" stop_mount
