#!/usr/bin/env bash
# `cistern load URL`: brings a prefix, patterns and lists into a cache; running it again asks for nothing; a mount that shares the directory
# reads what was loaded while the store is down.
# sanitize long
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires jq curl python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
demo="$STORE_DIR/demo"
mkdir -p "$demo/model/sub" "$demo/other" "$demo/[odd] *"
head -c 9000001 /dev/urandom >"$demo/model/a.safetensors"
head -c 3000000 /dev/urandom >"$demo/model/b.safetensors"
head -c 500 /dev/urandom >"$demo/model/config.json"
: >"$demo/model/empty"
head -c 200000 /dev/urandom >"$demo/model/sub/c.safetensors"
head -c 100000 /dev/urandom >"$demo/other/d"
head -c 1000 /dev/urandom >"$demo/[odd] */x?"
start_store
cache="$WORK/cache"
store=(--endpoint "$STORE_URL" --anonymous)

load() { timeout 60 "$CISTERN" load "$@" "${store[@]}"; }
summary() { grep '"event": "summary"' "$WORK/out" | jq "$1"; }
gets() { store_stat '.requests.GetObject // 0'; }

check "a prefix is loaded" load oss://demo/model/ --cache-dir "$cache" --output json
load oss://demo/model/ --cache-dir "$cache" --output json >"$WORK/out" || fail "a second load failed"
check "everything is found" equal "$(summary .objects)" 5
check "the second load finds all of it" equal "$(summary '.objects_skipped')" 5
check "and fetches nothing" equal "$(summary '.bytes_fetched')" 0
before=$(gets)
check "a third one asks for no object" load oss://demo/model/ --cache-dir "$cache" --quiet
check "no GET" equal "$(gets)" "$before"

check "a pattern matches in one folder" load 'oss://demo/model/*.safetensors' --cache-dir "$WORK/c2" --output json
load 'oss://demo/model/*.safetensors' --cache-dir "$WORK/c2" --output json >"$WORK/out"
check "it matched two" equal "$(summary .objects)" 2
load 'oss://demo/**/*.safetensors' --cache-dir "$WORK/c2" --output json >"$WORK/out"
check "** matches across folders" equal "$(summary .objects)" 3
check "one object" load oss://demo/other/d --cache-dir "$WORK/c3" --quiet
printf 'model/config.json\nother/d\noss://demo/model/b.safetensors\n\n' >"$WORK/list"
load oss://demo --list "$WORK/list" --cache-dir "$WORK/c3" --output json >"$WORK/out"
check "a list: keys below the URL, and URLs" equal "$(summary '[.objects, .objects_done, .objects_skipped] | tostring')" '"[3,3,1]"'
printf 'c.safetensors\0' | load oss://demo/model/sub --list - --null --cache-dir "$WORK/c3" --output json >"$WORK/out"
check "a list with zero bytes on standard input" equal "$(summary .objects_done)" 1
load 'oss://demo/\[odd\] \*/x\?' --cache-dir "$WORK/c3" --output json >"$WORK/out"
check "a backslash makes characters ordinary" equal "$(summary .objects_done)" 1

check "the summary is for people" has <(load oss://demo/other/ --cache-dir "$WORK/c4" 2>&1) '^Loaded 1 file; 97\.66KiB fetched in '
check "--quiet says nothing" equal "$(load oss://demo/other/ --cache-dir "$WORK/c4" --quiet 2>&1)" ""
check "metadata of a URL is refused, with the reason" refuses "listings are kept by a mount" \
	"$CISTERN" load oss://demo/model/ --metadata --cache-dir "$cache" "${store[@]}"
check "no cache is a mistake" refuses "no cache was named" "$CISTERN" load oss://demo/model/ "${store[@]}"
check "a bucket that is not there" refuses "bucket" "$CISTERN" load oss://nobucket/x --cache-dir "$WORK/c5" "${store[@]}"

mnt="$WORK/mnt"
start_mount oss://demo "$mnt" --cache-dir "$cache" --list-timeout 600
ls -lR "$mnt" >/dev/null
stop_store
check "what was loaded is read while the store is down" cmp "$demo/model/a.safetensors" "$mnt/model/a.safetensors"
check "the others too" diff -r "$demo/model" "$mnt/model"
check "unmounted" stop_mount
