#!/usr/bin/env bash
# timeout: 600
# Real clients against the store with signatures checked: a table client x operation.
. "$(dirname "$0")/lib.sh"
requires aws s3cmd rclone s3fs node curl
requires_root
requires_fuse
/usr/bin/python3 -c 'import boto3' || fail "python3-boto3 is missing"
[ -d "${ALI_OSS_MODULE:=$TOP/tests/clients/node_modules/ali-oss}" ] || fail "the npm module ali-oss is missing: scripts/install-packages.sh test"

export TEST_AK=test-access-key TEST_SK=test-secret-key-with-some-length
echo "$TEST_AK:$TEST_SK" >"$WORK/keys"
chmod 600 "$WORK/keys"
start_store --keys "$WORK/keys"
cleanup 'umount -l /tmp/cistern-client-*/mnt 2>/dev/null'
/usr/bin/python3 "$TESTS/clients/matrix.py" --endpoint "$STORE_URL" --dir "$STORE_DIR" --ali-oss "$ALI_OSS_MODULE" >"$WORK/table" 2>"$WORK/matrix.log"
status=$?
sed 's/^/#| /' "$WORK/table"
check "no cell of the table failed" equal "$status" 0
check "the table is complete" has "$WORK/table" '^delete bucket'
