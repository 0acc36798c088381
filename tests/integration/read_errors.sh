#!/usr/bin/env bash
# sanitize
# What a store refuses becomes the right errno, with the reason in the log.
. "$(dirname "$0")/lib.sh"
requires curl jq python3
requires_root
requires_fuse

STORE_DIR=$WORK/objects
mkdir -p "$STORE_DIR/demo/sub"
for name in deny throttle sub/good; do
	echo "$name" >"$STORE_DIR/demo/$name"
done
start_store
curl -fsS -X PUT -H 'x-oss-storage-class: Archive' --data-binary frozen "$STORE_URL/demo/archived" >/dev/null || fail "no archived object"
"$TESTS/integration/mocks/stall_proxy.py" "$STORE_ADDRESS" >"$WORK/proxy.out" 2>"$WORK/proxy.log" &
proxy=$!
cleanup "stop_process $proxy"
wait_for 20 grep -q listening "$WORK/proxy.out" || fail "the proxy did not start"
store_url=$STORE_URL
STORE_URL=$(sed -n 's/^listening on //p' "$WORK/proxy.out")
start_mount oss://demo "$WORK/mnt" --deadline 4s

# The errno of opening and reading a file: its name, or nothing when that went well.
read_error() {
	python3 -c '
import errno, sys
try:
    open(sys.argv[1], "rb").read()
except OSError as e:
    print(errno.errorcode[e.errno])' "$1"
}
check "a name that does not exist: ENOENT" equal "$(read_error "$WORK/mnt/missing")" ENOENT
check "403: EACCES" equal "$(read_error "$WORK/mnt/deny")" EACCES
check "... with the store's words and request id in the log" has "$MOUNT_LOG" 'deny.*403 AccessDenied.*42'
check "throttled until the deadline: EIO" equal "$(read_error "$WORK/mnt/throttle")" EIO
check "... with the reason in the log" has "$MOUNT_LOG" 'throttle.*503 SlowDown'
check "archived: EIO" equal "$(read_error "$WORK/mnt/archived")" EIO
check "... with the hint to restore it in the log" has "$MOUNT_LOG" 'archived.*InvalidObjectState.*restore'
check "other files are read" equal "$(cat "$WORK/mnt/sub/good")" sub/good
curl -fsS -X POST -H 'Content-Type: application/xml' --data '<RestoreRequest><Days>1</Days></RestoreRequest>' \
	"$store_url/demo/archived?restore" >/dev/null
check "restored: it is read" equal "$(cat "$WORK/mnt/archived")" frozen
writing_errno() { python3 -c '
import errno, os, sys
try:
    exec(sys.argv[1])
except OSError as e:
    print(errno.errorcode[e.errno])' "$1"; }
m=$WORK/mnt
for call in "open('$m/new', 'w')" "open('$m/sub/good', 'a')" "os.mkdir('$m/d')" "os.unlink('$m/sub/good')" "os.rmdir('$m/sub')" \
	"os.rename('$m/sub/good', '$m/x')" "os.symlink('a', '$m/l')" "os.link('$m/sub/good', '$m/h')" "os.chmod('$m/sub/good', 0o600)" \
	"os.chown('$m/sub/good', 1, 1)" "os.utime('$m/sub/good')" "os.truncate('$m/sub/good', 0)" "os.setxattr('$m/sub/good', 'user.a', b'x')" \
	"os.mkfifo('$m/p')"; do
	check "EROFS: ${call//$m/}" equal "$(writing_errno "$call")" EROFS
done
check "unmounts" stop_mount
