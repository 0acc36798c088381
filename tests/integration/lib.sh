# Library of the integration tests: source it first. Shell functions over the real binary ($CISTERN).
#
#	. "$(dirname "$0")/lib.sh"
#	requires curl jq                    # else the test is skipped (and fails in scripts/test.sh, which installs everything)
#	start_store --latency 5ms           # sets STORE_URL, STORE_DIR (a folder a bucket), STORE_PID, STORE_LOG
#	start_mount oss://demo "$WORK/mnt"  # sets MOUNT_PID, MOUNT_LOG; options after the mountpoint
#	mount_stat .data.bytes_read         # a number from the last mount's statistics; level_stat .used: of its first cache level
#	check "what is true" command args   # prints a TAP line; a test fails when one check does
#	cleanup "command"                   # runs at the end, whatever happens, last first
#
# $WORK is a directory of the test's own and goes away at the end (KEEP=1 keeps it). Each test runs under a time limit of the
# runner. Exit: 0 passed, 77 skipped, else failed.
set -u

TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TOP=$(dirname "$TESTS")
CISTERN=${CISTERN:-$TOP/build/release/src/cli/cistern}
CISTERN=$(realpath -m "$CISTERN")
WORK=$(mktemp -d "${TMPDIR:-/tmp}/cistern-test.XXXXXX")
chmod 755 "$WORK"
export HOME="$WORK/home" LC_ALL=C.UTF-8
# The system's own python3, aws and so on: that is where install-packages.sh puts the clients.
export PATH="/usr/sbin:/usr/bin:/sbin:/bin:$PATH"
# A user's own keys and proxies must not leak into a test.
unset "${!OSS_@}" "${!AWS_@}" "${!ALIBABA_CLOUD_@}" http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY XDG_RUNTIME_DIR XDG_STATE_HOME
export no_proxy=127.0.0.1,localhost
mkdir -p "$HOME"

CLEANUP=()
CHECKS=0
FAILED=0

cleanup() { CLEANUP+=("$1"); }

_at_exit() {
	local status=$? i
	trap - EXIT
	for ((i = ${#CLEANUP[@]} - 1; i >= 0; i--)); do
		eval "${CLEANUP[i]}" || true
	done
	if [ "$status" -eq 0 ] && [ "$FAILED" -gt 0 ]; then
		status=1
	fi
	if [ "$status" -ne 0 ] && [ "$status" -ne 77 ]; then
		_show_logs
	fi
	[ "$CHECKS" -gt 0 ] && echo "1..$CHECKS"
	if [ "${KEEP:-}" ]; then
		echo "# kept: $WORK"
	else
		rm -rf --one-file-system "$WORK"
	fi
	exit "$status"
}
trap _at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

_show_logs() {
	local log
	for log in "$WORK"/*.log; do
		[ -s "$log" ] || continue
		echo "# ---- end of $(basename "$log")"
		tail -n 40 "$log" | sed 's/^/# /'
	done
}

skip() { # REASON
	echo "# skipped: $*"
	exit 77
}

# Commands that must be there. What scripts/install-packages.sh installs may not be missing in the test run.
requires() {
	local name
	for name; do
		command -v "$name" >/dev/null 2>&1 && continue
		if [ "${CISTERN_TEST_STRICT:-}" ]; then
			echo "not ok - the command $name is missing"
			exit 1
		fi
		skip "the command $name is missing"
	done
}
requires_root() { [ "$(id -u)" = 0 ] || skip "needs root"; }
requires_fuse() { [ -c /dev/fuse ] || skip "no /dev/fuse"; }

# Says in TAP whether the command succeeded.
check() { # DESCRIPTION COMMAND…
	local text=$1
	shift
	CHECKS=$((CHECKS + 1))
	if "$@" >"$WORK/.check" 2>&1; then
		echo "ok $CHECKS - $text"
		return 0
	fi
	FAILED=$((FAILED + 1))
	echo "not ok $CHECKS - $text"
	echo "#   command: $*"
	head -n 20 "$WORK/.check" | sed 's/^/#   /'
	return 0
}
check_not() { # DESCRIPTION COMMAND…
	local text=$1
	shift
	check "$text" _inverted "$@"
}
_inverted() { ! "$@"; }
# A file contains a line that matches (extended expression).
has() { # FILE PATTERN
	grep -qE -- "$2" "$1" || {
		echo "no line matches: $2"
		cat "$1"
		return 1
	}
}
equal() { # A B
	[ "$1" = "$2" ] || {
		echo "\"$1\" is not \"$2\""
		return 1
	}
}
fail() {
	echo "not ok - $*"
	exit 1
}

# Waits (without a fixed sleep) until the command succeeds; fails after a generous limit.
wait_for() { # SECONDS COMMAND…
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.05
	done
}

# Ends a process that we started: TERM, and KILL when it does not listen.
stop_process() { # PID
	[ -n "$1" ] || return 0
	kill "$1" 2>/dev/null || return 0
	wait_for 20 _is_gone "$1" || kill -9 "$1" 2>/dev/null
	wait "$1" 2>/dev/null
}
_is_gone() { [ ! -d "/proc/$1" ] || grep -q '^State:	Z' "/proc/$1/status" 2>/dev/null; }

STORES=0
# Starts an embedded store on a free port of 127.0.0.1. Options are those of `cistern store`; without --keys it is anonymous.
# STORE_DIR may be set before; unset it to give a second store its own.
start_store() {
	STORES=$((STORES + 1))
	STORE_LOG="$WORK/store$STORES.log"
	[ -n "${STORE_DIR:-}" ] || STORE_DIR="$WORK/store$STORES"
	mkdir -p "$STORE_DIR"
	"$CISTERN" store "$STORE_DIR" --listen "${STORE_LISTEN:-127.0.0.1:0}" --log-level "${STORE_LOG_LEVEL:-warn}" "$@" \
		>"$WORK/store$STORES.out" 2>"$STORE_LOG" &
	STORE_PID=$!
	cleanup "stop_process $STORE_PID"
	wait_for 30 _store_listens || {
		cat "$STORE_LOG"
		fail "the store did not start"
	}
	STORE_URL=$(sed -n 's/^listening on //p' "$WORK/store$STORES.out" | head -n 1)
	[ -n "$STORE_URL" ] || fail "the store ended at start"
	# shellcheck disable=SC2034 # for the tests
	STORE_ADDRESS=${STORE_URL#*://}
}
_store_listens() { grep -q '^listening on' "$WORK/store$STORES.out" || _is_gone "$STORE_PID"; }
stop_store() { stop_process "$STORE_PID"; }
# A number from the store's statistics: store_stat '.requests.GetObject // 0'
store_stat() { curl -fsS "${CURL_OPTIONS[@]}" "$STORE_URL/-/stats" | jq -r "$1"; }
store_stats_reset() { curl -fsS "${CURL_OPTIONS[@]}" -X POST "$STORE_URL/-/stats/reset" >/dev/null; }
CURL_OPTIONS=()

MOUNTS=0
# Mounts in the foreground of a background job, and waits until the mount can be used. Fails the test when it can't be.
start_mount() { # URL MOUNTPOINT [OPTIONS…]
	local url=$1 mountpoint=$2
	shift 2
	MOUNTS=$((MOUNTS + 1))
	MOUNT_LOG="$WORK/mount$MOUNTS.log"
	MOUNT_POINT=$mountpoint
	mkdir -p "$mountpoint"
	local credentials=(--anonymous)
	[ -n "${MOUNT_CREDENTIALS+set}" ] && credentials=("${MOUNT_CREDENTIALS[@]}")
	"$CISTERN" mount "$url" "$mountpoint" -f --endpoint "$STORE_URL" "${credentials[@]}" --log-level "${MOUNT_LOG_LEVEL:-info}" "$@" \
		2>"$MOUNT_LOG" &
	MOUNT_PID=$!
	cleanup "umount -l '$mountpoint' 2>/dev/null; stop_process $MOUNT_PID"
	wait_for 60 _mount_is_up "$mountpoint" || fail "the mount did not come up"
	if _is_gone "$MOUNT_PID"; then
		cat "$MOUNT_LOG"
		fail "the mount ended at start"
	fi
}
# A number from the statistics of the last mount: mount_stat .data.bytes_fetched; of the cache's first level: level_stat .used
mount_stat() { timeout 30 "$CISTERN" stats "$MOUNT_POINT" --json | jq -r "$1"; }
level_stat() { mount_stat ".cache.levels[0]$1"; }
# The process that serves the last mount; MOUNT_PID keeps it. Both change when they die.
fs_pid() { mount_stat .supervisor.file_system_pid; }
is_mounted() { grep -qF " $1 fuse" /proc/mounts; }
_mount_is_up() { grep -qE 'mounted .* (read-only|write=append);' "$MOUNT_LOG" || _is_gone "$MOUNT_PID"; }
# Unmounts; the process must end by itself with status 0.
stop_mount() {
	umount "$MOUNT_POINT" || return 1
	local status=0
	wait_for 30 _is_gone "$MOUNT_PID" || return 1
	wait "$MOUNT_PID" || status=$?
	[ "$status" = 0 ] || echo "the mount process ended with status $status"
	return "$status"
}

# Runs a command that must fail as bad input does: a status other than 0 in time, one line on standard error, nothing mounted.
refuses() { # PATTERN COMMAND…
	local pattern=$1 status=0
	shift
	timeout 60 "$@" >"$WORK/.out" 2>"$WORK/.err" || status=$?
	cat "$WORK/.err"
	if [ "$status" -eq 0 ] || [ "$status" -ge 124 ]; then
		echo "exit status $status"
		return 1
	fi
	[ "$(wc -l <"$WORK/.err")" = 1 ] || {
		echo "more or less than one line"
		return 1
	}
	grep -qE -- "$pattern" "$WORK/.err" || {
		echo "the line does not match: $pattern"
		return 1
	}
}
