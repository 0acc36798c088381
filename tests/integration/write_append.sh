#!/usr/bin/env bash
# sanitize
# timeout: 120
# Mounts with write=append: what programs do to files from front to end arrives in the bucket, whole, at the fewest requests.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires curl jq python3 tar

mkdir -p "$WORK/objects/demo/old dir"
STORE_DIR=$WORK/objects
BUCKET=$STORE_DIR/demo
printf 'first version' >"$BUCKET/existing"
for ((i = 0; i < 20; i++)); do
	echo "$i" >"$BUCKET/old dir/$i"
done
start_store
mnt=$WORK/mnt
start_mount oss://demo "$mnt" -o "write=append,keep_dir=$WORK/kept"

check "stats tell the mode" equal "$(mount_stat .mode)" "write=append"
check "the mount is not read-only for the kernel" has /proc/mounts " $mnt fuse.cistern rw,"

# ---- what it costs ----
requests() { # OPERATION
	store_stat ".requests.$1 // 0"
}
all_requests() { store_stat '[.requests[]] | add // 0'; }
ls "$mnt" >/dev/null

put_alone() { # WHAT: one PutObject and nothing else
	local puts all
	puts=$(requests PutObject)
	all=$(all_requests)
	[ "$puts" = 1 ] && [ "$all" = "$puts" ] && return 0
	store_stat '.requests'
	return 1
}
# Sees every size that a reader of the bucket can see.
cat >"$WORK/watch.py" <<'PY'
import http.client, os, sys
host, stop, out = sys.argv[1], sys.argv[2], sys.argv[3]
c = http.client.HTTPConnection(host)
sizes = set()
rounds = 0
while not os.path.exists(stop):
    for key in ("new", "existing"):
        c.request("HEAD", "/demo/" + key, headers={"x-oss-date": "now"})
        r = c.getresponse()
        r.read()
        sizes.add((key, r.status, r.headers.get("Content-Length") if r.status == 200 else None))
    rounds += 1
with open(out, "w") as f:
    for key, status, size in sorted(sizes, key=str):
        print(key, status, size, file=f)
    print("rounds", rounds, file=f)
PY
store_stats_reset
echo x >"$mnt/new"
check "echo x > new costs one PutObject" put_alone
check "its content" equal "$(cat "$BUCKET/new")" x
store_stats_reset
echo y >"$mnt/existing"
check "echo y > existing: one PutObject, one HEAD before it at most" test "$(requests PutObject)" = 1 -a "$(all_requests)" -le 2
check "its content" equal "$(cat "$BUCKET/existing")" y
rm "$mnt/new"
check "rm removes the object" test ! -e "$BUCKET/new"

printf 'first version' >"$mnt/existing"
python3 "$WORK/watch.py" "$STORE_ADDRESS" "$WORK/stop" "$WORK/seen" &
watcher=$!
for ((i = 0; i < 30; i++)); do
	echo xx >"$mnt/new"
	echo zz >"$mnt/existing"
	rm "$mnt/new"
done
touch "$WORK/stop"
wait "$watcher"
check "a reader of the bucket was looking" has "$WORK/seen" "^rounds [0-9]{2,}"
check_not "it never saw an empty object" has "$WORK/seen" " 200 0$"

# ---- contents ----
same() { cmp "$1" "$BUCKET/$2" && cmp "$1" "$mnt/$2"; }
head -c 70000001 /dev/urandom >"$WORK/big"
store_stats_reset
check "a file of 70 MB" cp "$WORK/big" "$mnt/big"
check "it is the same in the bucket and through the mount" same "$WORK/big" big
check "it went in parts" test "$(requests UploadPart)" -ge 5 -a "$(requests CompleteMultipartUpload)" = 1 -a "$(requests PutObject)" = 0
head -c 1000003 /dev/urandom >"$WORK/more"
cat "$WORK/more" >>"$WORK/big"
store_stats_reset
check "appending to it" sh -c "cat '$WORK/more' >>'$mnt/big'"
check "both pieces are there" same "$WORK/big" big
check "what was there was copied inside the store" test "$(requests UploadPartCopy)" -ge 1 -a "$(store_stat .bytes_in)" -lt 2000000
printf 'one' >"$WORK/small"
printf 'one' >"$mnt/small"
printf ' two' >>"$WORK/small"
check "appending to a small file" sh -c "printf ' two' >>'$mnt/small'"
check "both pieces are there" same "$WORK/small" small
: >"$mnt/empty"
check "an empty file shows at once" test -e "$mnt/empty" -a ! -s "$mnt/empty"
check "it is published when its last descriptor is closed" wait_for 20 test -e "$BUCKET/empty" -a ! -s "$BUCKET/empty"
check "dd with fsync at the end" dd if="$WORK/more" of="$mnt/dd" bs=64k conv=fsync status=none
check "its bytes" same "$WORK/more" dd
check "dd with large blocks" dd if="$WORK/big" of="$mnt/dd2" bs=3M status=none
check "its bytes" same "$WORK/big" dd2
check "truncating to nothing" truncate -s 0 "$mnt/dd"
check "it is empty" test -e "$mnt/dd" -a ! -s "$mnt/dd"
check "so it is in the bucket" wait_for 20 test -e "$BUCKET/dd" -a ! -s "$BUCKET/dd"
check "python writes json" python3 -c "
import json
with open('$mnt/x.json', 'w') as f:
    json.dump({'a': list(range(20000))}, f)
assert json.load(open('$mnt/x.json'))['a'][19999] == 19999"
check "it is in the bucket" python3 -c "import json; assert len(json.load(open('$BUCKET/x.json'))['a']) == 20000"

# ---- logs ----
cat >"$WORK/log.py" <<'PY'
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for i in range(20):
    os.write(fd, b"line %d\n" % i)
    os.fsync(fd)
    if open(sys.argv[2]).read() != "".join("line %d\n" % k for k in range(i + 1)):
        sys.exit("after fsync %d the bucket has %r" % (i, open(sys.argv[2]).read()))
os.close(fd)
PY
check "after each fsync of a log all of it is in the bucket" python3 "$WORK/log.py" "$mnt/app.log" "$BUCKET/app.log"
: >"$mnt/tail.log"
timeout 60 tail -n +1 -f -s 0.1 "$mnt/tail.log" >"$WORK/tail.out" 2>"$WORK/tail.err" &
tailing=$!
cleanup "kill $tailing 2>/dev/null"
for i in 1 2 3; do
	echo "entry $i" >>"$mnt/tail.log"
done
check "tail -f follows a log" wait_for 20 grep -q "entry 3" "$WORK/tail.out"
kill "$tailing" 2>/dev/null
wait "$tailing" 2>/dev/null
check "no entry twice, none lost" equal "$(cat "$WORK/tail.out")" "$(printf 'entry 1\nentry 2\nentry 3')"

# ---- trees ----
mkdir -p "$WORK/tree/a/b/c" "$WORK/tree/empty dir" "$WORK/tree/ünï"
for ((i = 0; i < 60; i++)); do
	head -c $((i * 997)) /dev/urandom >"$WORK/tree/a/b/f$i"
done
printf 'x' >"$WORK/tree/ünï/100%+\`"
printf 'y' >"$WORK/tree/a/b/c/deep"
check "mkdir -p" mkdir -p "$mnt/one/two/three"
check "the directories are there" test -d "$mnt/one/two/three"
check "cp -r of a tree" cp -r "$WORK/tree" "$mnt/one/two/three/"
check "it is equal" diff -r "$WORK/tree" "$mnt/one/two/three/tree"
tar -C "$WORK/tree" -cf "$WORK/tree.tar" .
mkdir "$mnt/untarred"
check "tar x" tar -C "$mnt/untarred" --no-same-owner -xf "$WORK/tree.tar"
check "it is equal" diff -r "$WORK/tree" "$mnt/untarred"
check "mv of a file" mv "$mnt/untarred/a/b/f7" "$mnt/moved"
check "it moved" sh -c "cmp '$WORK/tree/a/b/f7' '$BUCKET/moved' && [ ! -e '$BUCKET/untarred/a/b/f7' ] && [ ! -e '$mnt/untarred/a/b/f7' ]"
check "mv over another file" sh -c "mv '$mnt/moved' '$mnt/small' && cmp '$WORK/tree/a/b/f7' '$mnt/small'"
check "mv of a directory" mv "$mnt/one/two/three/tree" "$mnt/tree"
check "all of it moved" sh -c "diff -r '$WORK/tree' '$mnt/tree' && [ ! -e '$mnt/one/two/three/tree' ] && [ ! -e '$BUCKET/one/two/three/tree/a/b/f1' ]"
check_not "rmdir of a directory with files" rmdir "$mnt/tree"
check "rm -r" rm -r "$mnt/tree" "$mnt/untarred" "$mnt/old dir"
check "nothing is left" sh -c "[ ! -e '$mnt/tree' ] && ! find '$BUCKET' -path '*tree/*' -type f | grep . && [ ! -e '$BUCKET/old dir/3' ]"
check "rmdir of an empty one" rmdir "$mnt/one/two/three"
check_not "rmdir asks the store" sh -c "mkdir '$mnt/race' && mkdir -p '$BUCKET/race' && echo 1 >'$BUCKET/race/theirs' && rmdir '$mnt/race'"
check "what somebody else put there is still there" test -e "$BUCKET/race/theirs"

# ---- what is left ----
check "no upload was left behind" equal "$(store_stat '(.requests.InitiateMultipartUpload // 0) - (.requests.CompleteMultipartUpload // 0) - (.requests.AbortMultipartUpload // 0)')" 0
check "nothing was kept" equal "$("$CISTERN" conflicts ls --keep-dir "$WORK/kept")" ""
check "nothing is pending" equal "$(mount_stat '.writes.bytes_pending + .writes.conflicts + .writes.failures')" 0
check "unmounts cleanly" stop_mount
