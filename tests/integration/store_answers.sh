#!/usr/bin/env bash
# Answers that clients page through, and requests at the edge: each name once, every loop ends, nothing is taken for what it
# isn't.
. "$(dirname "$0")/lib.sh"
requires curl python3

STORE_DIR=$WORK/objects
mkdir -p "$STORE_DIR"/{a-long-name,a-long,ab-c,bbb,demo,zzz-last}
echo content >"$STORE_DIR/demo/file"
start_store --anonymous
url=$STORE_URL
field() { sed -n "s/.*<$1>\([^<]*\)<.*/\1/p" "$WORK/answer"; }
ask() { curl -s -o "$WORK/answer" -w '%{http_code}' "$@"; }

# Buckets, one a page; a name that is longer than the marker but sorts before it doesn't come again.
names=()
marker=
for _ in 1 2 3 4 5 6 7 8 9 10; do
	ask "$url/?max-keys=1&marker=$marker" >/dev/null
	names+=("$(grep -o '<Name>[^<]*' "$WORK/answer" | sed 's/<Name>//')")
	marker=$(field NextMarker)
	[ -n "$marker" ] || break
done
check "each bucket comes once" equal "${names[*]}" "a-long a-long-name ab-c bbb demo zzz-last"
ask "$url/?max-keys=3&prefix=a" >/dev/null
check "no next page where nothing follows" equal "$(field NextMarker)" ""
check "a path without a bucket isn't the list of buckets" equal "$(ask "$url//demo/file")" 400

# Pages of no length end at once.
ask -X POST "$url/demo/big?uploads" >/dev/null
id=$(field UploadId)
ask -X PUT -d part "$url/demo/big?partNumber=1&uploadId=$id" >/dev/null
ask "$url/demo/big?uploadId=$id&max-parts=0" >/dev/null
check "no parts" equal "$(field IsTruncated)" false
ask "$url/demo?uploads&max-uploads=0" >/dev/null
check "no uploads" equal "$(field IsTruncated)" false
ask -H 'x-amz-date: x' "$url/demo?max-keys=0" >/dev/null
check "no keys" equal "$(field IsTruncated)" false

# Completing again what was completed: S3 says the same once more, unless it is something else.
ask -X POST -H 'x-amz-date: x' "$url/demo/twice?uploads" >/dev/null
id=$(field UploadId)
etag=$(curl -s -D - -o /dev/null -X PUT -H 'x-amz-date: x' -d part "$url/demo/twice?partNumber=1&uploadId=$id" | sed -n 's/^ETag: "\(.*\)".*/\1/p')
complete() { ask -X POST -H 'x-amz-date: x' -d "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>$1</ETag></Part></CompleteMultipartUpload>" "$url/demo/twice?uploadId=$id"; }
check "an upload is completed" equal "$(complete "$etag")" 200
first=$(field ETag)
check "and again" equal "$(complete "$etag")" 200
check "with the same ETag" equal "$(field ETag)" "$first"
check "not with other parts" equal "$(complete 0123456789abcdef0123456789abcdef)" 404

# Ranges that don't fit 64 bits.
range() { ask -H 'x-amz-date: x' -H "Range: bytes=$1" "$url/demo/file"; }
check "a range to the end and beyond all numbers" equal "$(range 3-18446744073709551615)" 206
check "gives the rest" equal "$(cat "$WORK/answer")" "tent"
check "a range that begins beyond all numbers" equal "$(range 99999999999999999999-)" 416

# Deleting many: what can't be deleted says why.
key=$(printf 'k%.0s' $(seq 1100))
ask -X POST -d "<Delete><Object><Key>$key</Key></Object><Object><Key>file</Key></Object></Delete>" "$url/demo?delete" >/dev/null
check "an impossible key is an error of its own" has "$WORK/answer" "<Code>InvalidObjectName</Code>"
check "the others go" has "$WORK/answer" "<Deleted><Key>file</Key></Deleted>"
