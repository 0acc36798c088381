#!/usr/bin/env bash
# sanitize
# Readers of 64 objects that the store stalls, at the beginning or in full flow, don't keep a 65th reader waiting, whatever the memory is,
# and can be killed.
. "$(dirname "$0")/lib.sh"
requires curl jq python3 cmp
requires_root
requires_fuse

STORE_DIR=$WORK/objects
mkdir -p "$STORE_DIR/demo/stall" "$STORE_DIR/demo/late"
for ((i = 0; i < 64; i++)); do
	truncate -s 100M "$STORE_DIR/demo/stall/$i" "$STORE_DIR/demo/late/$i"
done
head -c 20000000 /dev/urandom >"$STORE_DIR/demo/good"
start_store
"$TESTS/integration/mocks/stall_proxy.py" "$STORE_ADDRESS" >"$WORK/proxy.out" 2>"$WORK/proxy.log" &
proxy=$!
cleanup "stop_process $proxy"
wait_for 20 grep -q listening "$WORK/proxy.out" || fail "the proxy did not start"
STORE_URL=$(sed -n 's/^listening on //p' "$WORK/proxy.out")
all_stalled() { [ "$(curl -fsS "$STORE_URL/-/stalled")" -ge $((before + 64)) ]; }
all_gone() {
	local pid
	for pid in "${readers[@]}"; do
		_is_gone "$pid" || return 1
	done
}
for run in "512MiB stall" "64MiB stall" "512MiB late" "64MiB late"; do
	read -r memory where <<<"$run"
	start_mount oss://demo "$WORK/mnt" --memory "$memory"
	before=$(curl -fsS "$STORE_URL/-/stalled")
	readers=()
	for ((i = 0; i < 64; i++)); do
		cat "$WORK/mnt/$where/$i" >/dev/null 2>&1 &
		readers+=($!)
	done
	cleanup "kill -9 ${readers[*]} 2>/dev/null"
	check "$run: 64 requests hang" wait_for 60 all_stalled
	check "$run: another object is read all the same" timeout 60 cmp "$STORE_DIR/demo/good" "$WORK/mnt/good"
	check "$run: directories are listed" timeout 60 ls -l "$WORK/mnt/$where"

	disown "${readers[@]}"
	kill -9 "${readers[@]}"
	check "$run: the waiting readers can be killed" wait_for 30 all_gone
	check "$run: another read goes on" timeout 60 cmp "$STORE_DIR/demo/good" "$WORK/mnt/good"
	check "$run: unmounts" stop_mount
done
