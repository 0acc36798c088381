#!/bin/bash
# Keys change in the middle of a read of a mounted file, and the old ones stop working; the reader gets every byte.
# Each case runs in a process of its own with its own store, four at a time (a read takes 8 s).
# sanitize long
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires_root
requires_fuse
requires python3 jq curl cmp xargs

MIB=96
URL=oss://demo
MOCKS="$TESTS/integration/mocks"

replace() { # FILE, contents on standard input
	cat >"$1.new" && chmod 600 "$1.new" && mv "$1.new" "$1"
}
position() { sed -n 's/^pos:[[:space:]]*//p' "/proc/$READER/fdinfo/1" 2>/dev/null || echo 0; }
past() { [ "$(position)" -ge "$1" ] || _is_gone "$READER"; }

# Slow enough that much of the file is asked for after the change: 48 MiB at most are under way ahead, 12 MiB come a second.
store() {
	STORE_DIR="$WORK/buckets"
	mkdir -p "$STORE_DIR/demo"
	head -c ${MIB}M /dev/urandom >"$STORE_DIR/demo/large"
	[ -e "$WORK/keys" ] || printf 'AK1:sk-one\nAK2:sk-two\n' >"$WORK/keys"
	start_store --keys "$WORK/keys" --total-bandwidth 12MiB
}
only_second_key() { printf 'AK2:sk-two\n' | replace "$WORK/keys"; }

# Mounts with these options, starts reading, runs `change` after 6 MiB, and compares.
survives() { # CHANGE-FUNCTION OPTIONS…
	local change=$1 mnt="$WORK/mnt" status=0
	shift
	# shellcheck disable=SC2034 # read by start_mount
	MOUNT_CREDENTIALS=("$@")
	start_mount "$URL" "$mnt" --memory 64MiB
	cat "$mnt/large" >"$WORK/copy" 2>"$WORK/copy.err" &
	READER=$!
	wait_for 60 past $((6 << 20))
	if _is_gone "$READER"; then
		echo "the reader ended early"
		return 1
	fi
	$change || return 1
	wait "$READER" || status=$?
	cat "$WORK/copy.err"
	stop_mount || return 1
	equal "$status" 0 && cmp "$WORK/copy" "$STORE_DIR/demo/large"
}

declare -A CASES
CASES[passwd_moved]="passwd_file replaced"
case_passwd_moved() {
	echo "demo:AK1:sk-one" | replace "$WORK/passwd"
	change() {
		echo "demo:AK2:sk-two" | replace "$WORK/passwd"
		sleep 1 # a grace period, as rotations have
		only_second_key
	}
	store
	survives change -o passwd_file="$WORK/passwd"
}

CASES[nothing_rotated]="without new keys the read fails: what the other cases rest on"
case_nothing_rotated() {
	echo "demo:AK1:sk-one" | replace "$WORK/passwd"
	store
	! survives only_second_key -o passwd_file="$WORK/passwd" && grep -q 'Permission denied' "$WORK/copy.err"
}

CASES[passwd_in_place]="passwd_file rewritten, the old key ends at once"
case_passwd_in_place() {
	echo "demo:AK1:sk-one" | replace "$WORK/passwd"
	change() {
		echo "demo:AK2:sk-two" >"$WORK/passwd"
		only_second_key
	}
	store
	survives change -o passwd_file="$WORK/passwd"
}

CASES[volume]="Kubernetes secret volume swapped"
volume() { # VERSION ID SECRET: what kubelet does
	mkdir -p "$WORK/volume/..$1"
	printf %s "$2" >"$WORK/volume/..$1/AccessKeyId"
	printf %s "$3" >"$WORK/volume/..$1/AccessKeySecret"
	ln -s "..$1" "$WORK/volume/..data_tmp"
	mv -T "$WORK/volume/..data_tmp" "$WORK/volume/..data"
}
case_volume() {
	volume v1 AK1 sk-one
	ln -s ..data/AccessKeyId "$WORK/volume/AccessKeyId"
	ln -s ..data/AccessKeySecret "$WORK/volume/AccessKeySecret"
	change() {
		volume v2 AK2 sk-two
		rm -r "$WORK/volume/..v1"
		only_second_key
	}
	store
	survives change --secret-dir "$WORK/volume"
}

CASES[process_refused]="credential process, asked again after the refusal"
case_process_refused() {
	echo "AK1 sk-one" | replace "$WORK/pair"
	change() {
		echo "AK2 sk-two" | replace "$WORK/pair"
		only_second_key
	}
	store
	survives change --credential-process "$MOCKS/key_process.sh $WORK/pair"
}

CASES[process_expires]="credential process, renewed before expiry"
case_process_expires() {
	echo "AK1 sk-one 5" | replace "$WORK/pair"
	change() {
		echo "AK2 sk-two 3600" | replace "$WORK/pair"
		sleep 2.5 # half of the first key's life is over: it is renewed by now
		only_second_key
	}
	store
	survives change --credential-process "$MOCKS/key_process.sh $WORK/pair"
}

CASES[profile]="AWS profile file replaced"
case_profile() {
	mkdir -p "$HOME/.aws"
	printf '[default]\naws_access_key_id=AK1\naws_secret_access_key=sk-one\n' | replace "$HOME/.aws/credentials"
	change() {
		printf '[default]\naws_access_key_id=AK2\naws_secret_access_key=sk-two\n' | replace "$HOME/.aws/credentials"
		only_second_key
	}
	URL=s3://demo
	store
	survives change --profile default
}

# ---- services that give out keys ----
service() { # OPTIONS…
	: >"$WORK/keys"
	"$MOCKS/key_service.py" --listen 127.0.0.1:0 --keys "$WORK/keys" "$@" >"$WORK/service.out" 2>"$WORK/service.log" &
	SERVICE=$!
	cleanup "stop_process $SERVICE"
	wait_for 30 grep -q listening "$WORK/service.out" || fail "no key service"
	SERVICE_URL=$(sed -n 's/^listening on //p' "$WORK/service.out")
}
asked() { curl -fsS "$SERVICE_URL/-/stats" | jq ".$1 // 0"; }
asked_again() { wait_for 30 _asked_more "$1" "$(asked "$1")"; }
_asked_more() { [ "$(asked "$1")" -gt "$2" ]; }

CASES[role_expires]="instance role: keys of 4 s are renewed while a read goes on"
case_role_expires() {
	service --life 4
	store
	# The service makes only the last two keys known to the store: the first one does not last to the end.
	change() { asked_again role && asked_again role; }
	survives change -o ram_role=demo --metadata-endpoint "$SERVICE_URL"
}

CASES[role_revoked]="instance role: the key is revoked; one renewal is enough"
case_role_revoked() {
	service --life 3600
	store
	change() { curl -fsS -X POST "$SERVICE_URL/-/revoke"; }
	survives change -o ram_role=demo --metadata-endpoint "$SERVICE_URL" && equal "$(asked role)" 2
}

CASES[role_fails]="instance role: the service is down, the key it gave goes on"
case_role_fails() {
	service --life 8
	store
	change() { curl -fsS -X POST "$SERVICE_URL/-/fail?status=503" && asked_again failed; }
	survives change -o ram_role=demo --metadata-endpoint "$SERVICE_URL"
}

CASES[rrsa]="RRSA: the pod's token changes, keys of 4 s are renewed"
case_rrsa() {
	echo oidc-one | replace "$WORK/oidc"
	service --life 4 --oidc-token "$WORK/oidc"
	store
	change() {
		echo oidc-two | replace "$WORK/oidc"
		asked_again sts && asked_again sts
	}
	survives change --role-arn demo --oidc-provider-arn provider --oidc-token-file "$WORK/oidc" --sts-endpoint "$SERVICE_URL"
}

if [ -n "${ROTATION_CASE:-}" ]; then
	"case_$ROTATION_CASE"
	exit $?
fi
printf '%s\n' "${!CASES[@]}" | ROTATION_OUT="$WORK" xargs -P 4 -I{} \
	sh -c 'ROTATION_CASE={} bash "$0" >"$ROTATION_OUT/{}.out" 2>&1 && touch "$ROTATION_OUT/{}.passed"' "$0"
passed() {
	[ -e "$WORK/$1.passed" ] || {
		tail -n 30 "$WORK/$1.out"
		return 1
	}
}
for name in $(printf '%s\n' "${!CASES[@]}" | sort); do
	check "${CASES[$name]}" passed "$name"
done
