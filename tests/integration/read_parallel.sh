#!/usr/bin/env bash
# sanitize long
# timeout: 600
# 16 parallel readers find every byte right, over http and https.
. "$(dirname "$0")/lib.sh"
requires openssl curl jq cmp
requires_root
requires_fuse

make_tree() { # BUCKET-DIRECTORY
	mkdir -p "$1/tree/deep/er/est"
	cp -rL /usr/include/linux "$1/tree/linux"
	head -c 100000000 /dev/urandom >"$1/large"
	head -c 1048577 /dev/urandom >"$1/tree/deep/mib-and-one"
	: >"$1/tree/deep/er/empty"
	local i
	for ((i = 0; i < 2000; i++)); do
		head -c $((i * 7 % 5000)) /dev/urandom >"$1/tree/deep/er/est/file-$i"
	done
}

# Compares all files with 16 processes, small pieces of the large one at random places among them.
all_equal() { # SOURCE MOUNT
	(cd "$1" && find . -type f -print0) | SOURCE=$1 MOUNT=$2 xargs -0 -P 16 -n 25 bash -c '
		for f; do cmp -- "$SOURCE/$f" "$MOUNT/$f" || exit 255; done' _ || return 1
	export SOURCE=$1 MOUNT=$2
	seq 1 160 | xargs -P 16 -n 10 bash -c '
		for i; do
			skip=$(((i * 2654435761) % 99000)); count=$((i % 9 + 1))
			cmp <(dd if="$SOURCE/large" bs=1000 skip=$skip count=$count status=none) \
			    <(dd if="$MOUNT/large" bs=1000 skip=$skip count=$count status=none) || exit 255
		done' _
}
# 16 readers of the same large file at once.
one_file_16_times() { # SOURCE MOUNT
	export SOURCE=$1 MOUNT=$2
	seq 1 16 | xargs -P 16 -n 1 bash -c 'cmp "$SOURCE/large" "$MOUNT/large" || exit 255'
}
same_names() { diff <(cd "$1" && find . | sort) <(cd "$2" && find . | sort); }

STORE_DIR=$WORK/objects
make_tree "$STORE_DIR/demo"

run() { # WORD MOUNT-OPTIONS…
	local word=$1
	shift
	start_mount oss://demo "$WORK/$word" "$@"
	check "$word: the same names" same_names "$STORE_DIR/demo" "$WORK/$word"
	check "$word: every byte with 16 readers" all_equal "$STORE_DIR/demo" "$WORK/$word"
	check "$word: one object read 16 times at once" one_file_16_times "$STORE_DIR/demo" "$WORK/$word"
	check "$word: unmounts" stop_mount
}

start_store
run http
run direct-64MiB --memory 64MiB -o direct_io
stop_store

openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
	-keyout "$WORK/key.pem" -out "$WORK/cert.pem" 2>/dev/null || fail "no certificate"
CURL_OPTIONS=(--cacert "$WORK/cert.pem")
start_store --tls-cert "$WORK/cert.pem" --tls-key "$WORK/key.pem"
run https --ca "$WORK/cert.pem"
check "an unknown CA is refused" refuses 'certificate' "$CISTERN" mount oss://demo "$WORK/https" --endpoint "$STORE_URL" --anonymous
