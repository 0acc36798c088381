#!/usr/bin/env bash
# A load that can't be complete exits 1 and lists what is missing: keys that aren't there or may not be read, a store that fails, a quota that is
# too small. What could be loaded is.
# sanitize long
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires jq curl python3

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mkdir -p "$demo/many" "$demo/big"
head -c 1000000 /dev/urandom >"$demo/good"
for ((i = 0; i < 60; i++)); do head -c 400000 /dev/urandom >"$demo/many/$i"; done
for ((i = 0; i < 12; i++)); do head -c 4000000 /dev/urandom >"$demo/big/$i"; done
start_store
store=(--endpoint "$STORE_URL" --anonymous)
load() { # STATUS ARGUMENTS…: the command's standard error is in $WORK/err
	local wanted=$1 status=0
	shift
	timeout 100 "$CISTERN" load "$@" >"$WORK/out" 2>"$WORK/err" || status=$?
	cat "$WORK/out" "$WORK/err"
	equal "$status" "$wanted"
}
summary() { grep '"event": "summary"' "$WORK/out" | jq -c "$1"; }

check "a key that isn't there: status 1" load 1 oss://demo/good oss://demo/missing --cache-dir "$WORK/c1" --report "$WORK/report" "${store[@]}"
check "it is named" has "$WORK/err" "missing"
check "the other is loaded" has "$WORK/out" '^Loaded 1 file'
check "a pattern that matches nothing: status 1" load 1 'oss://demo/*.none' --cache-dir "$WORK/c1" "${store[@]}"
check "it is named" has "$WORK/err" '\.none'
check "a report that can't be written: status 2" load 2 oss://demo/good --cache-dir "$WORK/c1" --report /nonexistent/r "${store[@]}"
check "a list that can't be read: status 2" load 2 oss://demo --list /nonexistent/l --cache-dir "$WORK/c1" "${store[@]}"

# 48 MB into 16 MiB: nothing that was loaded may be evicted for the rest of the same load.
check "a quota that is too small: status 1" load 1 oss://demo/big/ --cache-dir "$WORK/c2:16MiB" --cache-keep-free 1MiB --report "$WORK/report" \
	--output json --pin "${store[@]}"
check "some are loaded, the others refused" test "$(summary '.objects_done > 0 and .objects_refused > 0 and .objects_done + .objects_refused == 12')" = true
check "the report has each of them" equal "$(wc -l <"$WORK/report")" "$(summary .objects_refused)"
check "a line is key, tab, reason" has "$WORK/report" $'^(oss://demo/)?big/[0-9]+\t.+'
stop_store

# Whatever is asked for fails.
start_store --fail 1:503:GetObject
store=(--endpoint "$STORE_URL" --anonymous)
check "a store that fails: status 1" load 1 oss://demo/many/ --cache-dir "$WORK/c3" --deadline 2 --retries 1 --report "$WORK/report" "${store[@]}"
check "20 failures are shown" equal "$(grep -c '^cistern: .*many/' "$WORK/err")" 20
check "and how many more there are" has "$WORK/err" "and 40 more; the report lists all"
check "the report has 60" equal "$(wc -l <"$WORK/report")" 60
stop_store

# A key whose bucket the access key may not use.
printf 'AKone:secretone:other\n' >"$WORK/keys"
start_store --keys "$WORK/keys"
printf 'AKone:secretone\n' >"$WORK/passwd"
chmod 600 "$WORK/passwd"
check "a bucket that may not be read: status 1" load 1 oss://demo/good --cache-dir "$WORK/c4" --endpoint "$STORE_URL" --passwd-file "$WORK/passwd"
check "it says AccessDenied in one line" has "$WORK/err" "AccessDenied"
check "an endpoint where nothing is: status 1" load 1 oss://demo/good --cache-dir "$WORK/c4" --endpoint http://127.0.0.1:1 --anonymous --deadline 2 --retries 0
