#!/usr/bin/env bash
# -o max_stat_cache_size=0 (ossfs 1.0) and -o close_to_open: what another writer did shows at the next stat, open and ls.
# sanitize
. "$(dirname "$0")/lib.sh"
requires curl jq
requires_root
requires_fuse

STORE_DIR=$WORK/objects
mkdir -p "$STORE_DIR/demo/dir"
echo one >"$STORE_DIR/demo/dir/file"
echo two >"$STORE_DIR/demo/other"
start_store
put() { curl -fsS -X PUT --data-binary "$2" "$STORE_URL/demo/$1"; }
link_to() { curl -fsS -X PUT "$STORE_URL/demo/dir/link?symlink" -H "x-oss-symlink-target: $1"; }
del() { curl -fsS -X DELETE "$STORE_URL/demo/$1"; }

for option in max_stat_cache_size=0 close_to_open max_stat_cache_size=0,kernel_cache close_to_open,attributes=object; do
	put dir/file "one"
	start_mount oss://demo "$WORK/mnt" -o "$option"
	file=$WORK/mnt/dir/file
	check "$option: the content" equal "$(cat "$file")" one
	put dir/file "longer"
	check "$option: a new size" equal "$(stat -c %s "$file")" 6
	check "$option: new content" equal "$(cat "$file")" longer
	put dir/file "LONGER"
	check "$option: other bytes of the same size" equal "$(cat "$file")" LONGER
	exec 9<"$file"
	read -r -N 3 -u 9 first
	put dir/file "shrt"
	check "$option: who has it open sees the version that was opened" equal "$first$(cat <&9)" LONGER
	exec 9<&-
	check "$option: who opens it sees the new one" equal "$(cat "$file")" shrt
	check_not "$option: a name that is not there" test -e "$WORK/mnt/dir/new"
	put dir/new "x"
	check "$option: a new name" test -f "$WORK/mnt/dir/new"
	check "$option: in the directory" equal "$(ls "$WORK/mnt/dir" | tr '\n' ' ')" "file new "
	del dir/new
	check_not "$option: a deleted name" test -e "$WORK/mnt/dir/new"
	check "$option: nor in the directory" equal "$(ls "$WORK/mnt/dir")" file
	put dir/turn/x "x"
	check "$option: a new directory" test -d "$WORK/mnt/dir/turn"
	del dir/turn/x
	put dir/turn "x"
	check "$option: a file in its place" equal "$(cat "$WORK/mnt/dir/turn")" x
	del dir/turn
	link_to dir/file
	check "$option: a link" equal "$(readlink "$WORK/mnt/dir/link")" file
	link_to other
	check "$option: that points elsewhere now" equal "$(readlink "$WORK/mnt/dir/link")" ../other
	link_to nowhere
	check "$option: to nothing" equal "$(readlink "$WORK/mnt/dir/link")" ../nowhere
	check_not "$option: which is not there" cat "$WORK/mnt/dir/link"
	del dir/link
	check "$option: unmounts" stop_mount
done
