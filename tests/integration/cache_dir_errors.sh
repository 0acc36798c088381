#!/usr/bin/env bash
# Cache directories that can't be used are told in one line when mounting and loading, with exit status 1, or 2 when the option itself is wrong; nothing
# is mounted.
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires jq curl setpriv
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
mnt="$WORK/mnt"
mkdir -p "$STORE_DIR/demo" "$mnt"
echo content >"$STORE_DIR/demo/file"
start_store
store=(--endpoint "$STORE_URL" --anonymous)
exits() { # STATUS PATTERN COMMAND…
	local wanted=$1 pattern=$2 status=0
	shift 2
	timeout 60 "$@" >"$WORK/out" 2>"$WORK/err" || status=$?
	cat "$WORK/err"
	# A mount in the foreground logs there, too.
	equal "$status" "$wanted" && equal "$(grep -vc '^20.* info ' "$WORK/err")" 1 && has "$WORK/err" "^cistern: .*$pattern"
}
both() { # WHAT STATUS PATTERN CACHE-OPTION…
	local what=$1 status=$2 pattern=$3
	shift 3
	check "mount: $what" exits "$status" "$pattern" "$CISTERN" mount oss://demo "$mnt" -f "${store[@]}" "$@"
	check_not "nothing is mounted" is_mounted "$mnt"
	check "load: $what" exits "$status" "$pattern" "$CISTERN" load oss://demo/ "${store[@]}" "$@"
}

echo x >"$WORK/file"
both "a file" 1 "not a directory" --cache-dir "$WORK/file"
both "below a file" 1 "[Nn]ot a directory" --cache-dir "$WORK/file/dir"
both "no medium" 2 "is none of MEM, SSD and HDD" --cache-level "TAPE:/x:1GiB"
both "no path" 2 "names no path" --cache-level "SSD::1GiB"
both "a quota that is none" 2 "is not a quota" --cache-dir "$WORK/c:lots"
both "watermarks the wrong way round" 2 "above the high one" --cache-level "SSD:$WORK/c:1GiB:0.5:0.9"
both "the same directory twice" 1 "twice" --cache-level "SSD:$WORK/c:1GiB" --cache-level "HDD:$WORK/c:1GiB"
both "five levels" 2 "too many" --cache-level SSD:/1 --cache-level SSD:/2 --cache-level SSD:/3 --cache-level SSD:/4 --cache-level SSD:/5
both "both spellings" 2 "exclude each other" --cache-dir "$WORK/c" --cache-level "SSD:$WORK/d:1GiB"
check "mount: a directory that must exist" exits 1 "No such file" "$CISTERN" mount oss://demo "$mnt" "${store[@]}" --cache-dir "$WORK/missing" -o check_cache_dir_exist
check "cache: a directory that is none" exits 1 "name the directory of a cache" "$CISTERN" cache ls --cache-dir "$WORK/missing"
check "which is not made" test ! -e "$WORK/missing"
mkdir "$WORK/theirs"
chown 12345:12345 "$WORK/theirs"
chmod 755 "$WORK/theirs"
both "another user's directory" 1 "belongs to user 12345" --cache-dir "$WORK/theirs"
mkdir -m 777 "$WORK/open"
check "mount: a directory that others may write to isn't used as it is" bash -c '"$1" load oss://demo/ --cache-dir "$2" --endpoint "$3" --anonymous --quiet && [ "$(stat -c %a "$2/cistern-0")" = 700 ]' \
	- "$CISTERN" "$WORK/open" "$STORE_URL"

# Another user, who may not write there.
mkdir -m 755 "$WORK/roots"
cp "$CISTERN" "$WORK/cistern"
chmod 755 "$WORK/cistern"
nobody=(setpriv --reuid 12345 --regid 12345 --clear-groups)
check "load: no permission" exits 1 "[Pp]ermission denied" "${nobody[@]}" "$WORK/cistern" load oss://demo/ "${store[@]}" --cache-dir "$WORK/roots/c"

# A memory limit, of the first or the second kind of cgroups.
v1=/sys/fs/cgroup/memory/cistern-test-$$ v2=/sys/fs/cgroup/cistern-test-$$ group=
if [ -f /sys/fs/cgroup/memory/memory.limit_in_bytes ] && mkdir "$v1" 2>/dev/null; then
	group=$v1
	cleanup "rmdir '$group'"
	echo 300M >"$group/memory.limit_in_bytes" 2>/dev/null || group=
elif grep -qs memory /sys/fs/cgroup/cgroup.subtree_control && mkdir "$v2" 2>/dev/null; then
	group=$v2
	cleanup "rmdir '$group'"
	echo 300M >"$group/memory.max" 2>/dev/null || group=
fi
if [ "$group" ]; then
	mem=$(mktemp -d /dev/shm/cistern-test.XXXXXX)
	cleanup "rm -rf '$mem'"
	limited() { (
		echo "$BASHPID" >"$group/cgroup.procs" || exit 99
		exec "$@"
	); }
	# shellcheck disable=SC2317 # called through check
	limited_exits() { limited "$CISTERN" "$@" >"$WORK/out" 2>"$WORK/err"; }
	limited_exits mount oss://demo "$mnt" "${store[@]}" --memory 64MiB --cache-level "MEM:$mem:280MiB"
	check "a MEM level over the memory limit: status 1" equal $? 1
	check "one line says so" has "$WORK/err" "don't fit into the cgroup's limit of 300"
	check_not "nothing is mounted" is_mounted "$mnt"
	check "one that fits" limited "$CISTERN" load oss://demo/ "${store[@]}" --memory 64MiB --cache-level "MEM:$mem:100MiB" --quiet
else
	echo "# no cgroup can be made here: the memory limit is not tried"
fi
check "in the end it mounts" bash -c '"$1" mount oss://demo "$2" --endpoint "$3" --anonymous --log-dir "$4" --cache-dir "$4/c" >/dev/null && cat "$2/file" && umount "$2"' \
	- "$CISTERN" "$mnt" "$STORE_URL" "$WORK"
