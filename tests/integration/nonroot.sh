#!/usr/bin/env bash
# A user that is not root mounts through fusermount3, sees stats and unmounts; allow_other needs the administrator.
. "$(dirname "$0")/lib.sh"
requires curl jq fusermount3 setpriv
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
mkdir -p "$STORE_DIR/demo"
echo content >"$STORE_DIR/demo/file"
start_store
home="$WORK/user"
mnt="$home/mnt"
mkdir -p "$mnt"
cp "$CISTERN" "$home/cistern" # the build directory may be root's alone
chown -R nobody "$home"
# Where the device is root's alone, as in containers, a user can't mount at all.
if [ ! -r /dev/fuse ] || [ "$(stat -c %a /dev/fuse)" != 666 ]; then
	before=$(stat -c %a /dev/fuse)
	chmod 666 /dev/fuse || skip "/dev/fuse can't be opened to users"
	cleanup "chmod $before /dev/fuse"
fi
cleanup "umount -l '$mnt' 2>/dev/null"
user=(setpriv --reuid=nobody --regid=nogroup --clear-groups env -i HOME="$home" PATH="$PATH")

check "a user mounts" "${user[@]}" "$home/cistern" mount oss://demo "$mnt" --endpoint "$STORE_URL" --anonymous
check "the log is in the home directory" test -s "$home/.local/state/cistern/$(tr / - <<<"${mnt#/}").log"
check "the user reads" equal "$("${user[@]}" cat "$mnt/file")" content
check "files belong to the user" equal "$("${user[@]}" stat -c %U "$mnt/file")" nobody
check "the user sees the statistics" has <("${user[@]}" "$home/cistern" stats "$mnt") "^source +oss://demo"
check_not "root is kept out, as the kernel does without allow_other" cat "$mnt/file"
# As for root, either process may die, and the program be replaced.
of_user() { "${user[@]}" "$home/cistern" stats "$mnt" --json | jq ".supervisor.$1"; }
kill -9 "$(of_user file_system_pid)"
check "another process serves" equal "$(timeout 30 "${user[@]}" cat "$mnt/file")" content
before=$(of_user pid)
kill -9 "$before"
keeps() { [ "$(of_user pid)" != "$before" ]; }
check "another process keeps the mount" wait_for 30 keeps
kill -9 "$(of_user file_system_pid)"
check "and starts one that serves" equal "$(timeout 30 "${user[@]}" cat "$mnt/file")" content
check "the user upgrades" "${user[@]}" "$home/cistern" upgrade "$mnt"
check "the user reads on" equal "$("${user[@]}" cat "$mnt/file")" content
keeper=$(of_user pid)
check "the user unmounts" "${user[@]}" "$home/cistern" umount "$mnt"
check_not "nothing is mounted" is_mounted "$mnt"
check "nothing is left" wait_for 30 _is_gone "$keeper"
store=(--endpoint "$STORE_URL" --anonymous)
check "the user loads into a cache at home" "${user[@]}" "$home/cistern" load oss://demo/ --cache-dir "$home/cache" --quiet "${store[@]}"
check "it is the user's alone" equal "$(stat -c '%U %a' "$home/cache")" "nobody 700"
check "the user mounts with it" "${user[@]}" "$home/cistern" mount oss://demo "$mnt" --cache-dir "$home/cache" "${store[@]}"
check "the user reads" equal "$("${user[@]}" cat "$mnt/file")" content
check "stats say why nothing is passed through" has <("${user[@]}" "$home/cistern" stats "$mnt") '^passthrough +off: not permitted'
check "the store was not asked for data" equal "$("${user[@]}" "$home/cistern" stats "$mnt" --json | jq .requests.get)" 0
check "the user unmounts" "${user[@]}" "$home/cistern" umount "$mnt"
if ! grep -qsx user_allow_other /etc/fuse.conf; then
	check "allow_other is refused" refuses "user_allow_other" "${user[@]}" "$home/cistern" mount oss://demo "$mnt" --endpoint "$STORE_URL" --anonymous -o allow_other
fi
mkdir "$WORK/roots"
check "a mountpoint of somebody else" refuses "mountpoint|permi" "${user[@]}" "$home/cistern" mount oss://demo "$WORK/roots" --endpoint "$STORE_URL" --anonymous
