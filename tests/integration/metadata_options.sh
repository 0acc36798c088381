#!/usr/bin/env bash
# The options of metadata in the spellings of ossfs and JindoFuse do what they say: counted in requests, and with time that passes.
# sanitize long
. "$(dirname "$0")/lib.sh"
requires curl jq
requires_root
requires_fuse

STORE_DIR=$WORK/objects
mkdir -p "$STORE_DIR/demo/dir" "$STORE_DIR/demo/big"
for i in 1 2 3; do echo "$i" >"$STORE_DIR/demo/dir/f$i"; done
for ((i = 0; i < 40; i++)); do echo "$i" >"$STORE_DIR/demo/big/g$i"; done
start_store
put() { curl -fsS -X PUT --data-binary "$2" "$STORE_URL/demo/$1"; }
del() { curl -fsS -X DELETE "$STORE_URL/demo/$1"; }
names() { ls "$1" | tr '\n' ' '; }

# ---- oss_negative_cache_timeout, oss_negative_cache_size
start_mount oss://demo "$WORK/mnt" -o oss_negative_cache_timeout=3600,oss_negative_cache_size=2,list_timeout=0,attr_timeout=0,entry_timeout=0
check_not "a name that is not there" test -e "$WORK/mnt/dir/new"
put dir/new x
store_stats_reset
check_not "is remembered" test -e "$WORK/mnt/dir/new"
check_not "by stat and open" cat "$WORK/mnt/dir/new"
asked=$(store_stat '[.requests.HeadObject, .requests.GetObjectMeta] | map(. // 0) | add')
check "and not asked for again (but its directory may be)" test "$asked" -le 4
check "a listing shows it" equal "$(names "$WORK/mnt/dir")" "f1 f2 f3 new "
check "then it is there" test -e "$WORK/mnt/dir/new"
del dir/new
check_not "one" test -e "$WORK/mnt/a"
check_not "two" test -e "$WORK/mnt/b"
check_not "three: the first makes room" test -e "$WORK/mnt/c"
put a x
put c x
check "the first was forgotten" test -e "$WORK/mnt/a"
check_not "the third was not" test -e "$WORK/mnt/c"
del a
del c
check "unmounts" stop_mount

start_mount oss://demo "$WORK/mnt" -o list_timeout=0,attr_timeout=0,entry_timeout=0
check_not "without the option a name that is not there" test -e "$WORK/mnt/dir/new"
put dir/new x
check "is found as soon as it is there" test -e "$WORK/mnt/dir/new"
del dir/new
check "unmounts" stop_mount

start_mount oss://demo "$WORK/mnt" -o oss_negative_cache_timeout=1,list_timeout=0,attr_timeout=0,entry_timeout=0
check_not "with a timeout of 1 s a name that is not there" test -e "$WORK/mnt/dir/new"
put dir/new x
check "is found when it has passed" wait_for 20 test -e "$WORK/mnt/dir/new"
del dir/new
check "unmounts" stop_mount

# ---- negative_timeout: the kernel remembers
start_mount oss://demo "$WORK/mnt" -o negative_timeout=3600,list_timeout=0
check_not "a name that is not there" test -e "$WORK/mnt/dir/new"
lookups=$(mount_stat .files.lookups)
check_not "and again" test -e "$WORK/mnt/dir/new"
check "is answered by the kernel" test "$(mount_stat .files.lookups)" -eq "$lookups"
check "unmounts" stop_mount

# ---- kernel_readdir_cache_timeout
start_mount oss://demo "$WORK/mnt" -o kernel_readdir_cache_timeout=3600,list_timeout=0
check "a directory" equal "$(names "$WORK/mnt/dir")" "f1 f2 f3 "
put dir/new x
store_stats_reset
check "is told by the kernel, as it was" equal "$(names "$WORK/mnt/dir")" "f1 f2 f3 "
check "without a listing" equal "$(store_stat '.requests.ListObjects // 0')" 0
check "unmounts" stop_mount
start_mount oss://demo "$WORK/mnt" -o list_timeout=0
check "without the option" equal "$(names "$WORK/mnt/dir")" "f1 f2 f3 new "
del dir/new
check "the directory is as it is now" equal "$(names "$WORK/mnt/dir")" "f1 f2 f3 "
check "unmounts" stop_mount

# ---- max_stat_cache_size, readdirplus
start_mount oss://demo "$WORK/mnt" -o max_stat_cache_size=20,list_timeout=3600,attr_timeout=3600,entry_timeout=3600
names "$WORK/mnt/dir" >/dev/null
names "$WORK/mnt/big" >/dev/null
names "$WORK/mnt/dir" >/dev/null
few() { [ "$(mount_stat .files.cached_dirs)" -le 2 ]; }
check "no more listings are kept than max_stat_cache_size says" wait_for 20 few
check "unmounts" stop_mount
for plus in true false; do
	start_mount oss://demo "$WORK/mnt" -o "readdirplus=$plus"
	before=$(mount_stat .files.lookups)
	# ls asks in a row, so that the kernel's choice of READDIRPLUS is made again for each call
	ls -l "$WORK/mnt/big" >/dev/null
	after=$(mount_stat .files.lookups)
	echo "# readdirplus=$plus: $((after - before)) lookups for 40 files"
	if [ "$plus" = true ]; then
		check "readdirplus: no lookups" test $((after - before)) -le 2
	else
		check "without it one each" test $((after - before)) -ge 40
	fi
	check "unmounts" stop_mount
done

# ---- readdir_optimize: no request an object
ln -s "$CISTERN" "$WORK/ossfs"
printf 'demo:ID:SECRET\n' >"$WORK/passwd"
chmod 600 "$WORK/passwd"
heads() { # OPTIONS
	mkdir -p "$WORK/omnt"
	"$WORK/ossfs" demo "$WORK/omnt" -ourl="$STORE_URL" -o "passwd_file=$WORK/passwd,log_dir=$WORK$1" >/dev/null || return 1
	store_stats_reset
	ls -l "$WORK/omnt/big" >/dev/null
	store_stat '[.requests.HeadObject, .requests.GetObjectMeta] | map(. // 0) | add'
	umount "$WORK/omnt"
}
cleanup "umount -l '$WORK/omnt' 2>/dev/null"
without=$(heads "")
with=$(heads ",readdir_optimize")
echo "# ls -l of 40 objects: $without HEADs, with readdir_optimize $with"
check "ossfs: each object is asked for its mode" test "$without" -ge 40
check "with readdir_optimize none is" test "$with" -le 3
