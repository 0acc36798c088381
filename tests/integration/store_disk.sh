#!/usr/bin/env bash
# A disk that is full, in the middle of a body and from its beginning: what was there stays, nothing half-done stays, and the
# client is told. Files and directories that the store may not read: shown or refused, never passed over.
. "$(dirname "$0")/lib.sh"
requires curl cmp setpriv mountpoint
requires_root

full=$WORK/full
mkdir "$full"
mount -t tmpfs -o size=8m tmpfs "$full" || skip "no tmpfs can be mounted"
cleanup "umount -l '$full'"
mkdir "$full/demo"
STORE_DIR=$full
start_store --anonymous
url=$STORE_URL/demo
head -c 3000000 /dev/urandom >"$WORK/fits"
head -c 20000000 /dev/urandom >"$WORK/large"
status() { curl -s -o "$WORK/answer" -w '%{http_code}' "$@"; }

check "an object that fits" equal "$(status -T "$WORK/fits" "$url/key")" 200
check "one that doesn't" equal "$(status -T "$WORK/large" "$url/key")" 507
check "the client is told" has "$WORK/answer" "<Code>InsufficientStorage</Code>"
check "one of unknown length" equal "$(status -H 'Transfer-Encoding: chunked' -T "$WORK/large" "$url/key")" 507
check "the old object is there" cmp <(curl -s "$url/key") "$WORK/fits"
check "an append that fits" equal "$(status -X POST --data-binary "@$WORK/fits" "$url/log?append&position=0")" 200
check "one that doesn't" equal "$(status -X POST --data-binary "@$WORK/fits" "$url/log?append&position=3000000")" 507
check "the object is as before" cmp <(curl -s "$url/log") "$WORK/fits"
dd if=/dev/zero of="$full/demo/filler" bs=4k 2>/dev/null
check "nothing fits any more" equal "$(status -X PUT -d x "$url/small")" 507
check "nor does a key that needs room where an object is" equal "$(status -X PUT -d x "$url/key/below")" 507
check "which is still there" cmp <(curl -s "$url/key") "$WORK/fits"
check "deleting works" equal "$(status -X DELETE "$url/filler")" 204
check "and makes room" equal "$(status -X PUT -d x "$url/key/below")" 200
check "for both" cmp <(curl -s "$url/key") "$WORK/fits"
check "nothing half-done is kept" equal "$(find "$full/.cistern" -mindepth 2 -type f)" ""
stop_process "$STORE_PID"

STORE_DIR=$WORK/objects
mkdir -p "$STORE_DIR/demo/locked"
for name in a secret z locked/in; do echo "$name" >"$STORE_DIR/demo/$name"; done
chown -R nobody "$STORE_DIR"
chown root "$STORE_DIR/demo/secret" "$STORE_DIR/demo/locked"
chmod 600 "$STORE_DIR/demo/secret"
chmod 700 "$STORE_DIR/demo/locked"
cp "$CISTERN" "$WORK/cistern"
printf '#!/bin/sh\nexec setpriv --reuid=nobody --clear-groups "%s" "$@"\n' "$WORK/cistern" >"$WORK/as-nobody"
chmod 755 "$WORK/as-nobody" "$WORK/cistern"
CISTERN=$WORK/as-nobody
start_store --anonymous
url=$STORE_URL/demo
keys() { curl -s "$1" | grep -oE '<(Key|Prefix)>[^<]+' | sed 's/.*>//' | tr '\n' ' '; }
check "a listing shows files and directories that can't be read" equal "$(keys "$url?delimiter=/")" "a secret z locked/ "
check "reading such a file is refused" equal "$(status "$url/secret")" 403
check "and told why" has "$WORK/answer" "Permission denied"
check "listing such a directory is refused, not cut short" equal "$(status "$url?prefix=locked/")" 403
check "so is writing there" equal "$(status -X PUT -d x "$url/locked/new")" 403
