#!/usr/bin/env bash
# Called as ossfs or ossfs2 the program takes those programs' command lines and files; mount(8) and fstab find it.
# Runs in a mount namespace of its own, where the names can stand in /usr/local/bin: mount(8) looks for helpers in the usual places alone.
if [ -z "${CISTERN_TEST_NAMESPACE:-}" ] && [ "$(id -u)" = 0 ]; then
	CISTERN_TEST_NAMESPACE=1 exec unshare -m bash "$0" "$@"
fi
. "$(dirname "$0")/lib.sh"
requires curl jq mount
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
mnt="$WORK/mnt"
bin="$WORK/bin"
mkdir -p "$STORE_DIR/demo/train/data" "$mnt" "$bin"
echo content >"$STORE_DIR/demo/train/data/file"
echo '#!/bin/sh' >"$STORE_DIR/demo/train/data/program"
echo "AKIDEXAMPLE:very-secret-value" >"$WORK/keys"
start_store --keys "$WORK/keys"
for name in ossfs ossfs2 cistern mount.fuse.cistern; do ln -s "$CISTERN" "$bin/$name"; done
export PATH="$bin:$PATH"
mount --bind "$bin" /usr/local/bin || skip "no mount namespace"
cleanup "umount -l '$mnt' 2>/dev/null"
printf 'demo:AKIDEXAMPLE:very-secret-value\n' >"$WORK/passwd"
chmod 600 "$WORK/passwd"

works() { # COMMAND…: mounts, reads, unmounts
	"$@" >"$WORK/out" 2>"$WORK/err" || {
		cat "$WORK/err"
		return 1
	}
	seen=$(cat "$mnt/file" 2>&1)
	flags=$(grep -F " $mnt fuse" /proc/mounts)
	mode=$(stat -c %a "$mnt/file" 2>&1)
	pid=$(sed -n 's/.*(process \([0-9]*\))$/\1/p' "$WORK/out")
	argv=$(tr '\0' ' ' <"/proc/${pid:-self}/cmdline")
	"$CISTERN" umount "$mnt" || return 1
	[ "$seen" = content ] || {
		echo "read: $seen"
		return 1
	}
}

# ossfs 1.0
check "ossfs: bucket:/path and -o options" works ossfs demo:/train/data "$mnt" -ourl="$STORE_URL" -opasswd_file="$WORK/passwd" -o allow_other \
	-o kernel_cache -o max_stat_cache_size=10000 -oumask=022 -o use_cache=$WORK/cache,parallel_count=20,max_multireq=20 -olog_dir="$WORK"
check "ossfs: it says that it is read-only" has "$WORK/err" "write=full is not in this version, mounted read-only"
check "ossfs: the log names options without effect" has <(cat "$WORK"/*mnt.log) "max_multireq has no effect"
check "ossfs: ro says nothing" works ossfs demo:/train/data "$mnt" -ourl="$STORE_URL" -opasswd_file="$WORK/passwd" -oro,log_dir="$WORK"
check_not "ossfs: no remark then" has "$WORK/err" "write=full"
check "ossfs: an endpoint without a scheme is http" works ossfs demo:/train/data "$mnt" -ourl="$STORE_ADDRESS" -o "passwd_file=$WORK/passwd,log_dir=$WORK"
check "ossfs: max_stat_cache_size=0" works ossfs demo:/train/data "$mnt" -ourl="$STORE_URL" -o "passwd_file=$WORK/passwd,max_stat_cache_size=0,log_dir=$WORK"
check "ossfs: unknown options are refused" refuses "unknown option -o kernelcache" ossfs demo "$mnt" -ourl="$STORE_URL" -okernelcache
check "ossfs: --version" has <(ossfs --version) "^cistern [0-9]"

# ossfs 2.0
cat >"$WORK/ossfs2.conf" <<END
# the bucket
--oss_endpoint=$STORE_URL
--oss_bucket=demo
--oss_bucket_prefix=train/data
--oss_access_key_id=AKIDEXAMPLE
--oss_access_key_secret=very-secret-value

--attr_timeout=7200
--upload_concurrency=64
END
chmod 600 "$WORK/ossfs2.conf"
check "ossfs2: a configuration file" works ossfs2 mount "$mnt" -c "$WORK/ossfs2.conf" --log_dir="$WORK" --log_level=info
check "ossfs2: its default mode" equal "$mode" 777
check "ossfs2: it is mounted for appending" has "$WORK/out" "is mounted on $mnt, write=append;"
check "ossfs2: everything on the command line" works ossfs2 mount "$mnt" --oss_endpoint="$STORE_URL" --oss_bucket=demo --oss_bucket_prefix=train/data/ \
	--oss_access_key_id=AKIDEXAMPLE --oss_access_key_secret=very-secret-value --ro=true --log_dir="$WORK"
check "ossfs2: the secret does not stay in the list of processes" equal "$(grep -c very-secret <<<"$argv")" 0
check "ossfs2: a warning about it" has "$WORK/err" "readable in the list of processes"
chmod 644 "$WORK/ossfs2.conf"
check "ossfs2: a file that all may read" works ossfs2 mount "$mnt" -c "$WORK/ossfs2.conf" --log_dir="$WORK"
check "ossfs2: a warning about it" has "$WORK/err" "every user can read it"
chmod 600 "$WORK/ossfs2.conf"
check_not "no secret in the logs" grep -r very-secret "$WORK" --include='*.log'

# mount(8): through mount.fuse, which runs `cistern SOURCE DIR -o …`, and from fstab
export OSS_ACCESS_KEY_ID=AKIDEXAMPLE OSS_ACCESS_KEY_SECRET=very-secret-value
check "mount -t fuse.cistern" works mount -t fuse.cistern oss://demo/train/data "$mnt" -o "ro,endpoint=$STORE_URL,log_dir=$WORK"
check "mounted with the type" has <(echo "$flags") "^oss://demo/train/data $mnt fuse\\.cistern ro,"
check "the helper as mount(8) calls it" works mount.fuse.cistern oss://demo/train/data "$mnt" -n -v -o "rw,noauto,_netdev,endpoint=$STORE_URL,log_dir=$WORK" -t fuse.cistern
check "its dry run mounts nothing" mount.fuse.cistern oss://demo/train/data "$mnt" -f -o "rw,endpoint=$STORE_URL"
check_not "nothing is mounted" is_mounted "$mnt"
printf 'oss://demo/train/data %s fuse.cistern _netdev,noauto,nofail,x-systemd.requires=network-online.target,ro,allow_other,passwd_file=%s,endpoint=%s,log_dir=%s 0 0\n' \
	"$mnt" "$WORK/passwd" "$STORE_URL" "$WORK" >"$WORK/fstab"
unset OSS_ACCESS_KEY_ID OSS_ACCESS_KEY_SECRET
check "a line of fstab" works mount -T "$WORK/fstab" "$mnt"
printf '%s %s fuse.ossfs2 _netdev,noauto,log_dir=%s 0 0\n' "$WORK/ossfs2.conf" "$mnt" "$WORK" >"$WORK/fstab"
check "a line of fstab for ossfs2" works mount -T "$WORK/fstab" "$mnt"
printf 'demo:/train/data %s fuse.ossfs _netdev,noauto,url=%s,passwd_file=%s,allow_other,log_dir=%s 0 0\n' "$mnt" "$STORE_URL" "$WORK/passwd" "$WORK" >"$WORK/fstab"
check "a line of fstab for ossfs" works mount -T "$WORK/fstab" "$mnt"
