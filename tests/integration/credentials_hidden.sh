#!/bin/bash
# No secret shows in the arguments of any process, in ps, in logs (not even at level trace), in error texts or in core dumps.
. "$(dirname "$0")/lib.sh"
requires_root
requires_fuse
requires gdb gcore ps python3

# Found with grep in raw memory too; the parts are joined only here, so that this script's own text does not match.
SECRET="Sk$$-hidden-$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')"
TOKEN="Tk$$-hidden-$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')"
STORE_DIR="$WORK/buckets"
mkdir -p "$STORE_DIR/demo"
head -c 3M /dev/urandom >"$STORE_DIR/demo/file"
(umask 077 && printf 'AKhidden:%s::%s\n' "$SECRET" "$TOKEN" >"$WORK/keys")
# shellcheck disable=SC2034 # read by start_store and start_mount
STORE_LOG_LEVEL=trace MOUNT_LOG_LEVEL=trace
start_store --keys "$WORK/keys"

without_secrets() { # FILE
	! grep -aqF -e "$SECRET" -e "$TOKEN" "$1"
}
# Arguments of all processes, as ps and /proc tell them. (Variables of the environment are shown to root alone.)
no_arguments_tell() {
	ps axww -o args >"$WORK/ps" && without_secrets "$WORK/ps" || return 1
	local f
	for f in /proc/[0-9]*/cmdline; do
		cat "$f" 2>/dev/null
	done >"$WORK/cmdlines"
	without_secrets "$WORK/cmdlines"
}
status_of() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"; }

mkdir "$WORK/secret"
printf %s AKhidden >"$WORK/secret/AccessKeyId"
printf %s "$SECRET" >"$WORK/secret/AccessKeySecret"
printf %s "$TOKEN" >"$WORK/secret/SecurityToken"
MOUNT_CREDENTIALS=(--secret-dir "$WORK/secret")
start_mount oss://demo "$WORK/mnt"
check "the mount reads" cmp "$WORK/mnt/file" "$STORE_DIR/demo/file"
check "no arguments tell a secret" no_arguments_tell
check "the mount's log at level trace" without_secrets "$MOUNT_LOG"
check "the store's log at level trace" without_secrets "$STORE_LOG"

# The secret is in the process's memory (else the searches of the dumps would prove nothing).
in_memory() { # PID
	python3 - "$1" "$SECRET" <<-'END'
		import re, sys
		pid, secret = sys.argv[1], sys.argv[2].encode()
		with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
		    for line in maps:
		        m = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
		        start, end = int(m[1], 16) if m else 0, int(m[2], 16) if m else 0
		        if not m or end - start > 1 << 30 or "[v" in line:
		            continue
		        try:
		            mem.seek(start)
		            if secret in mem.read(end - start):
		                sys.exit(0)
		        except OSError:
		            pass
		sys.exit(1)
	END
}
fs=$(fs_pid)
check "the secret is in the memory of the file system's process" in_memory "$fs"

dumped() { # PID
	rm -f "$WORK"/core.*
	timeout 120 gcore -o "$WORK/core" "$1" >"$WORK/gcore.out" 2>&1
	[ -s "$WORK/core.$1" ] || {
		cat "$WORK/gcore.out"
		return 1
	}
}
check "root takes a dump of it with gcore" dumped "$fs"
check "the dump holds no secret" without_secrets "$WORK/core.$fs"
rm -f "$WORK"/core.*
check "root takes a dump of the process that keeps the mount" dumped "$MOUNT_PID"
check "its dump holds no secret" without_secrets "$WORK/core.$MOUNT_PID"
rm -f "$WORK"/core.*
check "root takes a dump of the store with gcore" dumped "$STORE_PID"
check "the store's dump holds no secret" without_secrets "$WORK/core.$STORE_PID"
rm -f "$WORK"/core.*
for pid in "$fs" "$MOUNT_PID"; do
	check "the kernel can't dump process $pid" test "$(stat -c %U "/proc/$pid/environ")" = root
	check "its dump filter leaves all anonymous memory out" test "$(cat "/proc/$pid/coredump_filter")" = 00000010
	check "its core size limit is 0" grep -qE '^Max core file size +0 +0 ' "/proc/$pid/limits"
done

# A crash: the kernel must write nothing, whatever the limit in force outside.
no_core() {
	! find "$WORK" /tmp -maxdepth 1 -newer "$WORK/before" -name 'core*' -size +0 -uid 0 2>/dev/null | grep .
}
fs_crashes() {
	kill -SEGV "$fs"
	wait_for 20 _is_gone "$fs" && no_core
}
keeper_crashes() {
	local status=0
	kill -SEGV "$MOUNT_PID"
	wait "$MOUNT_PID" || status=$?
	equal "$status" 139 && no_core
}
touch "$WORK/before"
ulimit -c unlimited
check "a crash leaves no core" fs_crashes
# What it is to do, secrets included, is handed to the process that goes on; nobody sees it on the way, and the files it came from may be gone.
rm -r "$WORK/secret"
dropped() { echo 3 >/proc/sys/vm/drop_caches; }
dropped
check "another process goes on with the credential of before" cmp "$WORK/mnt/file" "$STORE_DIR/demo/file"
check "no arguments tell a secret then" no_arguments_tell
check "the secret is in its memory" in_memory "$(fs_pid)"
check "a crash of the process that keeps the mount leaves no core" keeper_crashes
check "the mount goes on" cmp "$WORK/mnt/file" "$STORE_DIR/demo/file"
again=$(mount_stat .pid)
check "gcore of the process that keeps it now" dumped "$again"
check "the dump holds no secret" without_secrets "$WORK/core.$again"
check "the log of all of them" without_secrets "$MOUNT_LOG"
rm -f "$WORK"/core.*
umount -l "$WORK/mnt"
check "it ends with the mount" wait_for 30 _is_gone "$again"

# Secrets in the environment: the arguments and logs still say nothing, and processes of other users can't read it.
export OSS_ACCESS_KEY_ID=AKhidden OSS_ACCESS_KEY_SECRET=$SECRET OSS_SESSION_TOKEN=$TOKEN
MOUNT_CREDENTIALS=(--region "") # no credential option
start_mount oss://demo "$WORK/mnt2"
check "mounted with keys of the environment" cmp "$WORK/mnt2/file" "$STORE_DIR/demo/file"
check "no arguments tell them" no_arguments_tell
check "the log doesn't" without_secrets "$MOUNT_LOG"
for pid in "$(fs_pid)" "$MOUNT_PID"; do
	check "gcore of process $pid" dumped "$pid"
	check "the dump holds no secret of the environment" without_secrets "$WORK/core.$pid"
done
rm -f "$WORK"/core.*
stop_mount
unset OSS_ACCESS_KEY_ID OSS_ACCESS_KEY_SECRET OSS_SESSION_TOKEN

# A command line is refused when it brings a secret, and the text of the error does not repeat it.
check "a secret among the arguments is refused" refuses '[Ss]ecret|access' "$CISTERN" mount oss://demo "$WORK/mnt3" --endpoint "$STORE_URL" \
	--access-key-id AKhidden --access-key-secret "$SECRET"
check "the refusal does not repeat it" without_secrets "$WORK/.err"
