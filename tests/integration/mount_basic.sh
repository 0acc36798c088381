#!/usr/bin/env bash
# A bucket with all sorts of files is mounted, listed, read by 16 at once, over http and over https; every byte is the same.
# sanitize
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires jq curl openssl python3
requires_root
requires_fuse

large=48
[ "${CISTERN_SANITIZED:-}" ] && large=12
STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mnt="$WORK/mnt"
mkdir -p "$demo/deep/er/and deeper" "$demo/many"
head -c $((large << 20)) /dev/urandom >"$demo/large.bin"
head -c 3000001 /dev/urandom >"$demo/odd.bin"
: >"$demo/empty"
strange=$'n\u00e4me with spaces & <xml> %41+\'quotes\''
printf 'hello' >"$demo/deep/er/and deeper/$strange"
for i in $(seq 300); do echo "$i" >"$demo/many/file-$i"; done

read_by_16() {
	local i pids=() pid status=0
	for i in $(seq 16); do
		case $((i % 3)) in
		0) cmp "$demo/large.bin" "$mnt/large.bin" ;;
		1) diff -r "$demo/many" "$mnt/many" && cmp "$demo/odd.bin" "$mnt/odd.bin" ;;
		2) random_reads "$i" ;;
		esac &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid" || status=1; done
	return "$status"
}
random_reads() { # SEED
	python3 - "$1" "$demo/large.bin" "$mnt/large.bin" <<'PY'
import os, random, sys
random.seed(int(sys.argv[1]))
a, b = (os.open(path, os.O_RDONLY) for path in sys.argv[2:])
size = os.fstat(a).st_size
assert os.fstat(b).st_size == size
for _ in range(60):
    offset, length = random.randrange(size), random.choice((1, 4096, 131072, 1000000))
    assert os.pread(a, length, offset) == os.pread(b, length, offset), (offset, length)
assert os.pread(b, 10, size) == b""
PY
}
writing_is_refused() {
	local status=0
	touch "$mnt/new" 2>"$WORK/.touch" && status=1
	grep -q 'Read-only file system' "$WORK/.touch" || status=1
	rm "$mnt/empty" 2>"$WORK/.rm" && status=1
	grep -q 'Read-only file system' "$WORK/.rm" || status=1
	return "$status"
}
try_all() { # SCHEME
	check "$1: the same names and bytes" diff -r "$demo" "$mnt"
	check "$1: 16 readers at once" read_by_16
	check "$1: a missing name is ENOENT" has <(stat "$mnt/missing" 2>&1) 'No such file'
	check "$1: writing is refused as read-only" writing_is_refused
	check "$1: modes and owner" equal "$(stat -c '%a %u %g %s' "$mnt/odd.bin") $(stat -c %a "$mnt/deep")" "644 0 0 3000001 755"
	check "$1: the type shows in the mount table" has /proc/mounts "^oss://demo $mnt fuse\\.cistern ro,"
	"$CISTERN" stats "$mnt" --json >"$WORK/stats.json"
	check "$1: stats tell bytes and requests" jq -e '.data.bytes_read > 0 and .requests.get > 0 and .mode == "read-only"' "$WORK/stats.json"
	check "$1: memory stays within its limit" jq -e '.data.memory_peak <= .data.memory_limit' "$WORK/stats.json"
	check "$1: unmounting ends the process with status 0" stop_mount
}

start_store
start_mount oss://demo "$mnt" -o ro
try_all http
start_mount s3://demo/deep "$mnt" --region local
check "a prefix as an S3 bucket" diff -r "$demo/deep" "$mnt"
check "unmounted by cistern umount" "$CISTERN" umount "$mnt"
check_not "nothing is mounted" is_mounted "$mnt"
stop_store

openssl req -x509 -newkey rsa:2048 -nodes -keyout "$WORK/key.pem" -out "$WORK/cert.pem" -days 2 -subj /CN=127.0.0.1 \
	-addext subjectAltName=IP:127.0.0.1 2>"$WORK/openssl.log" || fail "openssl"
start_store --tls-cert "$WORK/cert.pem" --tls-key "$WORK/key.pem"
check "an unknown authority is refused" refuses "certificate" "$CISTERN" mount oss://demo "$mnt" --endpoint "$STORE_URL" --anonymous
start_mount oss://demo "$mnt" -o ro --ca "$WORK/cert.pem"
try_all https
