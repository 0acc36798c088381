#!/usr/bin/env bash
# sanitize long
# timeout: 240
# Answers that come late or never: the request had its effect, the next attempt meets it, and neither is that taken for somebody else's work, nor
# somebody else's for ours.
. "$(dirname "$0")/lib.sh"
requires_fuse
requires curl jq

mkdir -p "$WORK/objects/demo"
STORE_DIR=$WORK/objects
BUCKET=$STORE_DIR/demo
head -c 12000000 /dev/urandom >"$WORK/big"

FILES=8
write_all() { # DIR ROUND
	local i
	for ((i = 0; i < FILES; i++)); do
		echo "new $2 $i" >"$1/new-$2-$i" || return 1
		echo "again $2 $i" >"$1/same-$i" || return 1
		echo "line $2" >>"$1/log-$i" || return 1
	done
	cp "$WORK/big" "$1/big-$2" || return 1
	cat "$WORK/big" >>"$1/big-twice" || return 1
}
all_there() { # ROUND
	local i k
	for ((i = 0; i < FILES; i++)); do
		[ "$(cat "$BUCKET/new-$1-$i")" = "new $1 $i" ] || return 1
		[ "$(cat "$BUCKET/same-$i")" = "again $1 $i" ] || return 1
		[ "$(cat "$BUCKET/log-$i")" = "$(for ((k = 1; k <= $1; k++)); do echo "line $k"; done)" ] || {
			cat "$BUCKET/log-$i"
			return 1
		}
	done
	cmp "$WORK/big" "$BUCKET/big-$1" || return 1
	cmp <(for ((k = 1; k <= $1; k++)); do cat "$WORK/big"; done) "$BUCKET/big-twice"
}

for scheme in oss s3; do
	rm -rf "${BUCKET:?}"/*
	round=0
	for fault in "0.5:reset:PutObject" "0.5:reset:CompleteMultipartUpload" "0.2:short"; do
		round=$((round + 1))
		start_store --fail "$fault" --fail-seed "$round"
		start_mount "$scheme://demo" "$WORK/mnt" -o "write=append,keep_dir=$WORK/kept"
		check "$scheme, $fault: every close succeeds" write_all "$WORK/mnt" "$round"
		check "$scheme, $fault: everything is there, once" all_there "$round"
		check "$scheme, $fault: answers were lost" test "$(store_stat '[.faults[]?[]?] | add // 0')" -ge 1
		check "$scheme, $fault: no conflict was seen" equal "$(mount_stat '.writes.conflicts + .writes.failures')" 0
		stop_mount
		stop_store
	done
done
check "nothing was kept" equal "$("$CISTERN" conflicts ls --keep-dir "$WORK/kept")" ""

# ---- answers that take longer than the client waits ----
start_store
STORE_LISTEN=$STORE_ADDRESS
start_mount oss://demo "$WORK/mnt" -o "write=append,keep_dir=$WORK/kept,request_timeout=1"
ls "$WORK/mnt" >/dev/null
stop_store
start_store --latency 1300ms
echo late | cat >"$WORK/mnt/late" &
writing=$!
check "the store has done it, and its answer comes too late" wait_for 20 test -e "$BUCKET/late"
check "the writer still waits" kill -0 "$writing"
stop_store
start_store
check "with answers in time the write succeeds" wait "$writing"
check "its content" equal "$(cat "$BUCKET/late")" late
check "no conflict with oneself" equal "$(mount_stat '.writes.conflicts + .writes.failures')" 0
stop_mount

# ---- answers that never come ----
stop_store
start_store --fail 0.4:lost:PutObject --fail-seed 3
start_mount oss://demo "$WORK/mnt" -o "write=append,keep_dir=$WORK/kept,request_timeout=1"
FILES=3
check "requests that are done and never answered: every close succeeds" write_all "$WORK/mnt" 9
check "that happened" test "$(store_stat '[.faults[]?.lost // 0] | add // 0')" -ge 1
check "no conflict with oneself" equal "$(mount_stat '.writes.conflicts + .writes.failures')" 0
check "nothing was kept" equal "$("$CISTERN" conflicts ls --keep-dir "$WORK/kept")" ""
