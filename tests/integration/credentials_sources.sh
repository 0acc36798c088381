#!/bin/bash
# Each source of credentials mounts a bucket of a store that checks signatures; a wrong or malformed source is refused in one line.
# The metadata services answer at their real addresses, in a network namespace.
if [ -z "${CISTERN_TEST_NETNS:-}" ] && unshare -n true 2>/dev/null; then
	CISTERN_TEST_NETNS=1 exec unshare -n bash "$0" "$@"
fi
. "$(dirname "$0")/lib.sh"
requires_root
requires_fuse
requires python3 ip jq curl openssl
[ -n "${CISTERN_TEST_NETNS:-}" ] || skip "no network namespace"
ip link set lo up && ip addr add 100.100.100.200/32 dev lo && ip addr add 169.254.169.254/32 dev lo || skip "no network namespace"

STORE_DIR="$WORK/buckets"
mkdir -p "$STORE_DIR/demo"
echo hello >"$STORE_DIR/demo/hello.txt"
echo "AKgood:sk-good-1234" >"$WORK/keys"
echo "oidc-token-1" >"$WORK/oidc"
"$TESTS/integration/mocks/key_service.py" --listen 100.100.100.200:80 --listen 169.254.169.254:80 --listen 127.0.0.1:0 \
	--keys "$WORK/keys" --oidc-token "$WORK/oidc" >"$WORK/service.out" 2>"$WORK/service.log" &
SERVICE=$!
cleanup "stop_process $SERVICE"
wait_for 20 grep -q 'on http://127' "$WORK/service.out" || fail "no key service"
SERVICE_URL=$(sed -n 's/^listening on \(.*127.0.0.1.*\)/\1/p' "$WORK/service.out")
start_store --keys "$WORK/keys"
endpoint=("--endpoint=$STORE_URL")

# Mounts with these options and variables, reads, and looks at what `stats` says of the source.
mounts() { # SOURCE URL [VARIABLE=VALUE…] -- [OPTIONS…]
	local source=$1 url=$2 variables=() mnt="$WORK/mnt" pid
	shift 2
	while [ "$1" != -- ]; do
		variables+=("$1")
		shift
	done
	shift
	mkdir -p "$mnt"
	rm -f "$WORK/m.log"
	env "${variables[@]}" "$CISTERN" mount "$url" "$mnt" -f "${endpoint[@]}" "$@" 2>"$WORK/m.log" &
	pid=$!
	cleanup "umount -l '$mnt' 2>/dev/null; stop_process $pid"
	wait_for 30 _up "$pid"
	is_mounted "$mnt" || {
		cat "$WORK/m.log"
		return 1
	}
	local got said status=0
	got=$(cat "$mnt/hello.txt")
	said=$("$CISTERN" stats "$mnt" --json | jq -r .credentials)
	umount "$mnt"
	wait_for 20 _is_gone "$pid"
	wait "$pid" || status=$?
	# shellcheck disable=SC2053 # a pattern
	if equal "$got" hello && equal "$status" 0 && [[ "$said" == $source ]]; then
		return 0
	fi
	echo "source: $said"
	cat "$WORK/m.log"
	return 1
}
_up() { grep -q 'mounted .* read-only' "$WORK/m.log" || _is_gone "$1"; }
refused() { # PATTERN URL [VARIABLE=VALUE…] -- [OPTIONS…]
	local pattern=$1 url=$2 variables=()
	shift 2
	while [ "$1" != -- ]; do
		variables+=("$1")
		shift
	done
	shift
	mkdir -p "$WORK/mnt"
	refuses "$pattern" env "${variables[@]}" "$CISTERN" mount "$url" "$WORK/mnt" "${endpoint[@]}" "$@" || return 1
	is_mounted "$WORK/mnt" && return 1
	! grep -q 'sk-good-1234\|oidc-token' "$WORK/.err"
}

OSS=oss://demo S3=s3://demo
KEYS=(OSS_ACCESS_KEY_ID=AKgood OSS_ACCESS_KEY_SECRET=sk-good-1234)

check "environment" mounts environment $OSS "${KEYS[@]}" --
check "environment, the names of the Alibaba tools" mounts environment $OSS ALIBABA_CLOUD_ACCESS_KEY_ID=AKgood ALIBABA_CLOUD_ACCESS_KEY_SECRET=sk-good-1234 --
check "environment, S3" mounts environment $S3 AWS_ACCESS_KEY_ID=AKgood AWS_SECRET_ACCESS_KEY=sk-good-1234 --
check "half of the environment is refused" refused 'OSS_ACCESS_KEY_SECRET is not' $OSS OSS_ACCESS_KEY_ID=AKgood --
check "a wrong secret is refused" refused '403|SignatureDoesNotMatch' $OSS OSS_ACCESS_KEY_ID=AKgood OSS_ACCESS_KEY_SECRET=wrong --
check "an unknown key is refused" refused 'InvalidAccessKeyId' $OSS OSS_ACCESS_KEY_ID=AKnone OSS_ACCESS_KEY_SECRET=wrong --
check "no credentials anywhere" refused "can't find credentials" $OSS --

printf '# keys\nother:x:y\ndemo:AKgood:sk-good-1234\n' >"$WORK/passwd"
chmod 600 "$WORK/passwd"
check "passwd_file" mounts "$WORK/passwd" $OSS -- -o passwd_file="$WORK/passwd"
chmod 640 "$WORK/passwd"
check "passwd_file with mode 0640" mounts "$WORK/passwd" $OSS -- -o passwd_file="$WORK/passwd"
chmod 644 "$WORK/passwd"
check "passwd_file that everyone may read is refused" refused 'mode is 0644.*chmod 600' $OSS -- -o passwd_file="$WORK/passwd"
printf 'demo:AKgood\nsk-good-1234\n' >"$WORK/passwd"
chmod 600 "$WORK/passwd"
check "malformed passwd_file: the line is named, its text is not" refused "passwd: line 2: no ':'" $OSS -- -o passwd_file="$WORK/passwd"
check "missing passwd_file" refused 'No such file' $OSS -- -o passwd_file="$WORK/absent"
echo "AKgood:sk-good-1234" >"$HOME/.passwd-ossfs"
chmod 600 "$HOME/.passwd-ossfs"
check "\$HOME/.passwd-ossfs" mounts "*/.passwd-ossfs" $OSS --
rm "$HOME/.passwd-ossfs"

cat >"$HOME/.ossutilconfig" <<END
[Credentials]
language=EN
endpoint=$STORE_URL
accessKeyID=AKgood
accessKeySecret=sk-good-1234
END
check "ossutil 1" mounts "*/.ossutilconfig" $OSS --
endpoint=()
check "ossutil 1: nothing on the command line but bucket and mountpoint" mounts "*/.ossutilconfig" $OSS --
endpoint=("--endpoint=$STORE_URL")
cat >"$HOME/.ossutilconfig" <<END
[default]
access-key-id=AKgood
access-key-secret=wrong
[profile dev]
access-key-id=AKgood
access-key-secret=sk-good-1234
[profile ecs]
mode=EcsRamRole
ecs-role-name=demo
END
check "ossutil 2: profile" mounts "*dev*" $OSS -- --profile dev
check "ossutil 2: profile that names an instance role" mounts "*ECS RAM role demo*" $OSS -- --profile ecs
check "ossutil 2: no such profile" refused 'no such profile' $OSS -- --profile nobody
echo '[default' >"$WORK/broken"
check "ossutil: malformed file" refused 'broken: line 1' $OSS -- --ossutil-config "$WORK/broken"
rm "$HOME/.ossutilconfig"

mkdir -p "$HOME/.aws"
printf '[default]\naws_access_key_id = AKgood\naws_secret_access_key = sk-good-1234\n' >"$HOME/.aws/credentials"
printf '[profile proc]\ncredential_process = %s %s\n' "$TESTS/integration/mocks/key_process.sh" "$WORK/pair" >"$HOME/.aws/config"
echo "AKgood sk-good-1234" >"$WORK/pair"
check "AWS credentials file" mounts "*/.aws/credentials*" $S3 --
check "AWS credential_process" mounts "*credential process*" $S3 AWS_PROFILE=proc --

check "credential process" mounts "credential process *" $OSS -- -o credential_process="$TESTS/integration/mocks/key_process.sh $WORK/pair"
check "credential process that fails" refused 'ended with status 3' $OSS -- --credential-process 'echo sk-good-1234; exit 3'
check "credential process that prints something else" refused 'not a JSON object' $OSS -- --credential-process 'echo sk-good-1234'

mkdir "$WORK/secret"
echo AKgood >"$WORK/secret/akId"
check "secret directory with half a pair" refused 'neither a file AccessKeySecret nor a file akSecret' $OSS -- --secret-dir "$WORK/secret"
echo sk-good-1234 >"$WORK/secret/akSecret"
check "secret directory" mounts "secret directory *" $OSS -- --secret-dir "$WORK/secret"
check "secret directory given as passwd_file" mounts "secret directory *" $OSS -- -o passwd_file="$WORK/secret"

check "ECS RAM role at 100.100.100.200" mounts "ECS RAM role demo" $OSS -- -o ram_role=demo
check "ECS RAM role, name asked" mounts "ECS RAM role demo" $OSS -- -o ram_role=auto
check "ECS RAM role as a URL" mounts "credentials of http://100.100.100.200/*" $OSS -- -o ram_role=http://100.100.100.200/latest/meta-data/ram/security-credentials/demo
check "ECS RAM role: a proxy of the environment is not used" mounts "ECS RAM role demo" $OSS http_proxy=http://127.0.0.1:1 no_proxy=127.0.0.1 -- -o ram_role=demo
check "EC2 role at 169.254.169.254" mounts "EC2 instance role demo" $S3 -- -o ram_role=demo
check "ECS RAM role that is not there" refused 'HTTP status 404.*attach the role' $OSS -- -o ram_role=nobody
check "session tokens were used" test "$(curl -fsS "$SERVICE_URL/-/stats" | jq .token)" -ge 4

RRSA=(--role-arn demo --oidc-provider-arn provider --sts-endpoint "$SERVICE_URL")
check "RRSA" mounts "RRSA role demo" $OSS -- "${RRSA[@]}" --oidc-token-file "$WORK/oidc"
check "RRSA by its variables" mounts "RRSA role demo" $OSS ALIBABA_CLOUD_ROLE_ARN=demo ALIBABA_CLOUD_OIDC_PROVIDER_ARN=provider \
	ALIBABA_CLOUD_OIDC_TOKEN_FILE="$WORK/oidc" -- --sts-endpoint "$SERVICE_URL"
echo oidc-token-old >"$WORK/oidc.old"
check "RRSA with a token that is refused" refused 'AuthenticationFail.OIDCToken.Invalid' $OSS -- "${RRSA[@]}" --oidc-token-file "$WORK/oidc.old"

stop_process $SERVICE
echo "AKgood:sk-good-1234" >"$WORK/keys"
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$WORK/tls.key" -out "$WORK/tls.crt" -days 2 -subj /CN=sts -addext subjectAltName=IP:127.0.0.1 2>/dev/null
"$TESTS/integration/mocks/key_service.py" --listen 127.0.0.1:0 --tls "$WORK/tls.crt" "$WORK/tls.key" --keys "$WORK/keys" --oidc-token "$WORK/oidc" \
	>"$WORK/tls.out" 2>"$WORK/tls.log" &
SERVICE=$!
cleanup "stop_process $SERVICE"
wait_for 20 grep -q listening "$WORK/tls.out" || fail "no key service"
sleep 1.1 # the store looks at its key file once a second
RRSA_TLS=(--role-arn demo --oidc-provider-arn provider --oidc-token-file "$WORK/oidc" --sts-endpoint "$(sed -n 's/^listening on //p' "$WORK/tls.out")")
check "RRSA over https with --ca" mounts "RRSA role demo" $OSS -- "${RRSA_TLS[@]}" --ca "$WORK/tls.crt"
check "RRSA over https: an unknown certificate is refused" refused 'certificate' $OSS -- "${RRSA_TLS[@]}"

stop_process $SERVICE
"$TESTS/integration/mocks/key_service.py" --listen 100.100.100.200:80 --imds v1 --keys "$WORK/keys" >"$WORK/service1.out" 2>"$WORK/service1.log" &
cleanup "stop_process $!"
wait_for 20 grep -q listening "$WORK/service1.out" || fail "no key service"
sleep 1.1 # the store looks at its key file once a second
check "ECS RAM role from a service without session tokens" mounts "ECS RAM role demo" $OSS -- -o ram_role=demo
