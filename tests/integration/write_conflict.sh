#!/usr/bin/env bash
# sanitize
# timeout: 120
# Two mounts write one object, in both orders, over OSS and over S3: the second close fails, nothing is overwritten, and both versions can be
# had.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires curl jq python3

mkdir -p "$WORK/objects/demo"
STORE_DIR=$WORK/objects
BUCKET=$STORE_DIR/demo
start_store
head -c 20000000 /dev/urandom >"$WORK/big-one"
head -c 20000000 /dev/urandom >"$WORK/big-two"

# Opens in order, writes both, closes in order; prints the outcome of each close.
cat >"$WORK/two.py" <<'PY'
import errno, os, sys
first, second, how = sys.argv[1:4]
one, two = (open(p, "rb").read() for p in sys.argv[4:6])
flags = os.O_WRONLY | os.O_CREAT | {"new": 0, "replace": os.O_TRUNC, "append": os.O_APPEND}[how]
a = os.open(first, flags)
b = os.open(second, flags)
for fd, data in ((a, one), (b, two)):
    for at in range(0, len(data), 1 << 20):
        os.write(fd, data[at:at + (1 << 20)])
for fd in (a, b):
    try:
        os.close(fd)
        print("ok", end=" ")
    except OSError as e:
        print(errno.errorcode[e.errno], os.strerror(e.errno), end=" ")
print()
PY

refuses_stale() { # FILE
	! echo stale | cat >"$1" # the shell itself does not look at what close returns
}
conflicts() { timeout 60 "$CISTERN" conflicts "$@" --keep-dir "$WORK/kept"; }
store_options() { echo --endpoint "$STORE_URL" --anonymous; }
printf 'from one' >"$WORK/one"
printf 'the other one' >"$WORK/two"

run_case() { # SCHEME HOW KEY FIRST SECOND FILE1 FILE2
	local scheme=$1 how=$2 key=$3 first=$4 second=$5 one=$6 two=$7 before="" id
	[ "$how" = append ] && before=old-
	if [ "$how" = new ]; then
		rm -f "$BUCKET/$key"
	else
		printf old- >"$BUCKET/$key"
		"$CISTERN" refresh "$first" >/dev/null && "$CISTERN" refresh "$second" >/dev/null
	fi
	check "$scheme $how $key: the first close succeeds, the second fails" equal \
		"$(timeout 60 python3 "$WORK/two.py" "$first/$key" "$second/$key" "$how" "$one" "$two")" "ok ESTALE Stale file handle "
	check "$scheme $how $key: the object is the first one's" cmp <(printf '%s' "$before"; cat "$one") "$BUCKET/$key"
	id=$(conflicts ls --output json | jq -r 'select(.key == "'"$key"'") | .id')
	check "$scheme $how $key: the second one's is kept" test -n "$id"
	if [ "$(stat -c %s "$two")" -lt 1000000 ]; then
		check "$scheme $how $key: it can be read" conflicts get "$id" "$WORK/got" --force
		check "$scheme $how $key: its bytes" cmp <(printf '%s' "$before"; cat "$two") "$WORK/got"
		cp "$WORK/kept/$id.data" "$WORK/whole"
		printf '\377' | dd of="$WORK/kept/$id.data" bs=1 seek=1 conv=notrunc status=none
		# shellcheck disable=SC2046
		check "$scheme $how $key: one that has rotted is not published" refuses "is damaged.*another CRC64" \
			"$CISTERN" conflicts push "$id" --keep-dir "$WORK/kept" --as "$key.rotten" $(store_options)
		cp "$WORK/whole" "$WORK/kept/$id.data"
		# shellcheck disable=SC2046
		check "$scheme $how $key: it can be published under another key" conflicts push "$id" --as "$key.second" $(store_options)
		check "$scheme $how $key: both are there" sh -c "cat '$BUCKET/$key.second' >/dev/null && cmp '$WORK/got' '$BUCKET/$key.second'"
	else
		check_not "$scheme $how $key: bytes in parts can't be read" conflicts get "$id" "$WORK/got" --force
		check "$scheme $how $key: that is said" has <(conflicts get "$id" "$WORK/got" --force 2>&1) "parts of an unfinished upload"
		# shellcheck disable=SC2046
		check "$scheme $how $key: it can be published, the other one set aside" conflicts push "$id" --current-as "$key.first" $(store_options)
		check "$scheme $how $key: both are there" sh -c "cmp '$two' '$BUCKET/$key' && cmp '$one' '$BUCKET/$key.first'"
	fi
	check "$scheme $how $key: nothing is kept any more" equal "$(conflicts ls)" ""
}

for scheme in oss s3; do
	a=$WORK/$scheme-a
	b=$WORK/$scheme-b
	start_mount "$scheme://demo" "$a" -o "write=append,keep_dir=$WORK/kept"
	start_mount "$scheme://demo" "$b" -o "write=append,keep_dir=$WORK/kept"
	run_case $scheme new $scheme-new-ab "$a" "$b" "$WORK/one" "$WORK/two"
	run_case $scheme new $scheme-new-ba "$b" "$a" "$WORK/one" "$WORK/two"
	run_case $scheme replace $scheme-replace "$a" "$b" "$WORK/one" "$WORK/two"
	run_case $scheme append $scheme-append "$b" "$a" "$WORK/one" "$WORK/two"
	run_case $scheme new $scheme-big "$a" "$b" "$WORK/big-one" "$WORK/big-two"
	check "$scheme: statistics count them" equal "$(mount_stat .writes.conflicts)" 3
	check "$scheme: the log names what was kept" has "$MOUNT_LOG" "$scheme-replace"
	umount "$a" "$b"
done

# ---- forgetting ----
a=$WORK/a
b=$WORK/b
start_mount oss://demo "$a" -o "write=append,keep_dir=$WORK/kept"
start_mount oss://demo "$b" -o "write=append,keep_dir=$WORK/kept"
timeout 60 python3 "$WORK/two.py" "$a/gone" "$b/gone" new "$WORK/one" "$WORK/big-two" >/dev/null
id=$(conflicts ls --output json | jq -r .id)
store_stats_reset
# shellcheck disable=SC2046
check "rm forgets one" conflicts rm "$id" $(store_options)
check "its upload was aborted" equal "$(store_stat '.requests.AbortMultipartUpload // 0')" 1
check "nothing is kept any more" equal "$(conflicts ls)" ""
check "the object is as it was" cmp "$WORK/one" "$BUCKET/gone"

# ---- what a mount believes is as old as its timeouts ----
echo 1 >"$a/turns"
ls "$b" >/dev/null
echo 2 >"$b/turns"
check "a change that this mount has not seen is not overwritten" refuses_stale "$a/turns"
check "it has seen it then: the next one replaces it" sh -c "echo 3 >'$a/turns'"
check "the object" equal "$(cat "$BUCKET/turns")" 3
echo 4 >"$b/turns.other"
umount "$a" "$b"
start_mount oss://demo "$a" -o "write=append,close_to_open,keep_dir=$WORK/kept"
start_mount oss://demo "$b" -o "write=append,close_to_open,keep_dir=$WORK/kept"
take_turns() {
	local i
	for i in 1 2 3 4; do
		echo "a $i" >"$a/turns" || return 1
		echo "b $i" >"$b/turns" || return 1
		echo "a $i" >>"$a/turns" || return 1
	done
	[ "$(cat "$BUCKET/turns")" = "$(printf 'b 4\na 4')" ]
}
check "with close_to_open one after the other is no conflict" take_turns
