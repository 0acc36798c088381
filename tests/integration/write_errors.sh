#!/usr/bin/env bash
# sanitize long
# timeout: 120
# Writing when something is wrong: every failure is a clear error of the call that a program waits for, and what succeeded is in the bucket.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires curl jq python3

mkdir -p "$WORK/objects/demo"
STORE_DIR=$WORK/objects
BUCKET=$STORE_DIR/demo
mnt=$WORK/mnt
head -c 30000000 /dev/urandom >"$WORK/big"
APPEND=write=append,keep_dir=$WORK/kept

# errno of the operation, or 0; a line of Python
outcome() {
	timeout 60 python3 -c "
import os, sys, errno
def run(mnt):
$(sed 's/^/    /' <<<"$1")
try:
    run('$mnt')
    print(0)
except OSError as e:
    print(errno.errorcode[e.errno])"
}

# ---- read-only, and modes that are not there ----
printf 'content' >"$BUCKET/file"
start_store
start_mount oss://demo "$mnt"
check "a read-only mount says so to writers" equal "$(outcome "open(mnt + '/x', 'w')")" EROFS
check "the log names the option that would allow it" has "$MOUNT_LOG" "write=append"
stop_mount
check "write=full is refused, and says what there is" refuses "write=full.*not in this version.*write=append" \
	"$CISTERN" mount oss://demo "$mnt" --endpoint "$STORE_URL" --anonymous -o write=full

# ---- what append doesn't do ----
start_mount oss://demo "$mnt" -o "$APPEND"
check "writing in the middle is EINVAL" equal "$(outcome "fd = os.open(mnt + '/file', os.O_WRONLY); os.pwrite(fd, b'x', 2)")" EINVAL
check "the log says why, and what would help" has "$MOUNT_LOG" "(write=append|front to end)"
check "the file is as it was" equal "$(cat "$BUCKET/file")" content
check "leaving a gap is EINVAL" equal "$(outcome "fd = os.open(mnt + '/gap', os.O_WRONLY | os.O_CREAT); os.write(fd, b'ab'); os.pwrite(fd, b'x', 100)")" EINVAL
check "truncating to a part is EINVAL" equal "$(outcome "os.truncate(mnt + '/file', 3)")" EINVAL
check "a hard link is refused" equal "$(outcome "os.link(mnt + '/file', mnt + '/hard')" | grep -cE 'EPERM|ENOTSUP|EOPNOTSUPP')" 1
check "a device node is refused" equal "$(outcome "os.mknod(mnt + '/dev', 0o20600, os.makedev(1, 3))" | grep -cE 'EPERM|ENOTSUP|EOPNOTSUPP|EINVAL')" 1
check "chmod succeeds, as programs expect it to" equal "$(outcome "os.chmod(mnt + '/file', 0o600)")" 0
check "a second writer is EBUSY" equal "$(outcome "
a = os.open(mnt + '/busy', os.O_WRONLY | os.O_CREAT)
os.write(a, b'mine')
os.open(mnt + '/busy', os.O_WRONLY)")" EBUSY
check "the first one's bytes are there" equal "$(cat "$BUCKET/busy")" mine
check "names that no object can have" equal "$(outcome "open(mnt + '/' + 'x' * 256, 'w')")" ENAMETOOLONG
stop_mount
stop_store

# ---- rights ----
printf 'AKIDEXAMPLE:secret\n' >"$WORK/keys"
chmod 600 "$WORK/keys"
mkdir -p "$WORK/objects/other"
unset STORE_URL
start_store --keys "$WORK/keys"
printf 'AKIDEXAMPLE:secret\n' >"$WORK/passwd"
chmod 600 "$WORK/passwd"
MOUNT_CREDENTIALS=(--passwd-file "$WORK/passwd")
start_mount oss://demo "$mnt" -o "$APPEND,deadline=5,retries=1"
check "with rights" equal "$(outcome "open(mnt + '/allowed', 'w').write('x')")" 0
# From now on the key may not use this bucket.
printf 'AKIDEXAMPLE:secret:other\n' >"$WORK/keys"
attempts=0
denied() {
	attempts=$((attempts + 1))
	[ "$(outcome "
f = open(mnt + '/denied-$attempts', 'w')
f.write('x')
f.close()")" = EACCES ]
}
check "without rights close says EACCES" wait_for 20 denied
check "nothing came of it" test ! -e "$BUCKET/denied-$attempts"
kept_one() {
	id=$("$CISTERN" conflicts ls --keep-dir "$WORK/kept" --output json | jq -r .id)
	[ -n "$id" ]
}
check "a copy is made, a moment after the last descriptor is closed" wait_for 20 kept_one
check "what was written is kept" sh -c "[ \"\$('$CISTERN' conflicts get '$id' - --keep-dir '$WORK/kept')\" = x ]"
check "and forgotten when that is said" "$CISTERN" conflicts rm "$id" --keep-dir "$WORK/kept"
stop_mount || true
stop_store
unset MOUNT_CREDENTIALS

# ---- a sick store ----
start_store --fail 0.2:503 --fail 0.1:reset --fail 0.1:short --fail-seed 5
start_mount oss://demo "$mnt" -o "$APPEND"
sick() {
	local i
	cp "$WORK/big" "$mnt/sick-big" || return 1
	for ((i = 0; i < 30; i++)); do
		echo "number $i" >"$mnt/sick-$i" || return 1
	done
}
check "every write succeeds through 503s and cut connections" sick
check "the big one is whole" cmp "$WORK/big" "$BUCKET/sick-big"
sick_contents() {
	for ((i = 0; i < 30; i++)); do
		[ "$(cat "$BUCKET/sick-$i")" = "number $i" ] || return 1
	done
}
check "so are the small ones" sick_contents
check "none of it was a conflict" equal "$(mount_stat .writes.conflicts)" 0
stop_mount
stop_store

# ---- a store that dies in the middle ----
start_store
STORE_LISTEN=$STORE_ADDRESS
start_mount oss://demo "$mnt" -o "$APPEND"
python3 - "$WORK/big" "$mnt/restarted" "$WORK/halfway" <<'PY' &
import sys, time, os
data = open(sys.argv[1], "rb").read()
f = open(sys.argv[2], "wb", buffering=0)
for at in range(0, len(data), 1 << 20):
    f.write(data[at:at + (1 << 20)])
    if at == 16 << 20:
        open(sys.argv[3], "w").close()
        time.sleep(0.3)
f.close()
PY
writer=$!
wait_for 30 test -e "$WORK/halfway"
kill -9 "$STORE_PID"
wait "$STORE_PID" 2>/dev/null
start_store
check "a store that was killed and came back: the writer notices nothing" wait "$writer"
check "the file is whole" cmp "$WORK/big" "$BUCKET/restarted"

# ---- unmounting with a backlog ----
# A program that is killed in the close() that waits for the store.
killed_in_close() { # FILE TEXT
	python3 -c "
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, sys.argv[2].encode())
open(sys.argv[3], 'w').close()
os.close(fd)" "$1" "$2" "$WORK/closing" &
	local pid=$!
	wait_for 20 test -e "$WORK/closing"
	sleep 0.2
	kill -9 "$pid"
	wait "$pid" 2>/dev/null
	rm -f "$WORK/closing"
}
ls "$mnt" >/dev/null
stop_store
killed_in_close "$mnt/late" "written while the store was down"
"$CISTERN" umount "$mnt" 2>"$WORK/umount.err" &
unmounting=$!
check "umount says what it waits for" wait_for 20 grep -q "waiting for 1 files to be published" "$WORK/umount.err"
check "it waits" kill -0 "$unmounting"
start_store
check "it ends when the store is back" wait "$unmounting"
check "what was written is there" equal "$(cat "$BUCKET/late")" "written while the store was down"
wait "$MOUNT_PID"
check "the process ended well" equal "$?" 0

# ---- giving a backlog up ----
start_mount oss://demo "$mnt" -o "$APPEND"
ls "$mnt" >/dev/null
stop_store
killed_in_close "$mnt/never" kept
timeout 60 "$CISTERN" umount --force "$mnt" 2>"$WORK/umount.err"
check "umount --force fails" equal "$?" 1
check "it names what was not published" has "$WORK/umount.err" "not published: never .*kept as"
id=$("$CISTERN" conflicts ls --keep-dir "$WORK/kept" --output json | jq -r .id)
check "the bytes can be had" sh -c "[ \"\$('$CISTERN' conflicts get '$id' - --keep-dir '$WORK/kept')\" = kept ]"
start_store
check "they can be published" "$CISTERN" conflicts push "$id" --keep-dir "$WORK/kept" --endpoint "$STORE_URL" --anonymous
check "they are there" equal "$(cat "$BUCKET/never")" kept
check "the copy is gone" equal "$("$CISTERN" conflicts ls --keep-dir "$WORK/kept")" ""
