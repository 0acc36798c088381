#!/usr/bin/env bash
# Mounts a bucket on this machine, from nothing: installs packages, builds, starts an embedded store on real files, mounts it
# read-only, reads everything through the mount and compares every byte. May be run again at any time.
#
#	./scripts/quickstart.sh            do that, and leave store and mount running to look at
#	./scripts/quickstart.sh --clean    stop them and remove everything but the packages
#
# CISTERN_QUICKSTART_DIR chooses where its files go (about 400 MB), CISTERN_QUICKSTART_LARGE the megabytes of the large file.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
suffix=
[ "$(id -u)" = 0 ] || suffix=-$(id -u)
dir=${CISTERN_QUICKSTART_DIR:-/var/tmp/cistern-quickstart$suffix}
large=${CISTERN_QUICKSTART_LARGE:-256}
build=$top/build/quickstart
cistern=$build/src/cli/cistern
bucket=$dir/objects/demo
mnt=$dir/mnt

step=0
say() {
	step=$((step + 1))
	printf '\n%d. %s\n' "$step" "$*"
}
show() { printf '   $ %s\n' "$*"; }
die() {
	printf 'quickstart: %s\n' "$*" >&2
	exit 1
}

is_mounted() { grep -qF " $mnt fuse" /proc/mounts; }
unmount() {
	if is_mounted; then
		"$cistern" umount "$mnt" 2>/dev/null || umount "$mnt" 2>/dev/null || fusermount3 -u "$mnt" 2>/dev/null ||
			die "can't unmount $mnt: a program is using it (fuser -vm $mnt tells which)"
	fi
}
# Only the process that we started: the number in the file must still be our program.
stop_store() {
	local pid
	[ -f "$dir/store.pid" ] || return 0
	pid=$(cat "$dir/store.pid")
	if [ "$(readlink "/proc/$pid/exe" 2>/dev/null | sed 's/ (deleted)$//')" = "$cistern" ]; then
		kill "$pid"
		for _ in $(seq 200); do
			[ -d "/proc/$pid" ] || break
			sleep 0.05
		done
	fi
	rm -f "$dir/store.pid"
}

clean() {
	unmount
	stop_store
	rm -rf --one-file-system "$dir" "$build"
	rmdir "$top/build" /run/cistern 2>/dev/null || true
	echo "quickstart: removed $dir and $build; the installed packages stay"
}

make_files() {
	mkdir -p "$dir"
	if [ ! -f "$dir/complete" ]; then
		rm -rf "$dir/objects"
		mkdir -p "$bucket/small"
		cp -r --no-dereference /usr/include "$bucket/include"
		if [ -d /usr/share/doc ]; then cp -r --no-dereference /usr/share/doc "$bucket/doc"; fi
		head -c $((4000 * 1000)) /dev/urandom | split -a 4 -d -b 1000 - "$bucket/small/file-"
		head -c "$((large * 1024 * 1024))" /dev/urandom >"$bucket/large.bin"
		# Objects are files: links and empty directories have no counterpart in a bucket.
		find "$bucket" ! -type f ! -type d -delete
		find "$bucket" -type d -empty -delete
		touch "$dir/complete"
	fi
}

start_store() {
	stop_store
	setsid nohup "$cistern" store "$dir/objects" --listen 127.0.0.1:0 --anonymous >"$dir/store.out" 2>"$dir/store.log" </dev/null &
	echo $! >"$dir/store.pid"
	for _ in $(seq 200); do
		url=$(sed -n 's/^listening on //p' "$dir/store.out")
		[ -z "$url" ] || return 0
		sleep 0.05
	done
	cat "$dir/store.log" >&2
	die "the store did not start; its log is $dir/store.log"
}

compare() {
	local files bytes started=$SECONDS
	files=$(find "$bucket" -type f | wc -l)
	bytes=$(find "$bucket" -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%.0f", sum / 1e6 }')
	[ "$(find "$mnt" -type f | wc -l)" = "$files" ] || die "the mount does not list the same files as $bucket"
	diff -rq "$bucket" "$mnt" || die "the mount does not show the same bytes as $bucket"
	echo "   $files files, $bytes MB: every byte is the same ($((SECONDS - started)) s)"
}

case ${1:-} in
'') ;;
--clean)
	clean
	exit 0
	;;
*) die "unknown option $1; usage: quickstart.sh [--clean]" ;;
esac

say "Installing the packages to build and run Cistern (what is there stays as it is)"
show "./scripts/install-packages.sh build run"
./scripts/install-packages.sh build run

say "Building"
show "meson setup -Dbuildtype=release -Dtests=false build/quickstart && ninja -C build/quickstart"
[ -f "$build/build.ninja" ] || meson setup -Dbuildtype=release -Dtests=false "$build" >"$top/build-quickstart.log" 2>&1 || {
	cat "$top/build-quickstart.log"
	die "meson failed"
}
rm -f "$top/build-quickstart.log"
# The program may be running from an earlier time: it is replaced, not written over.
unmount
stop_store
ninja -C "$build" | tail -n 1

say "Putting real files into a folder; each folder in $dir/objects is a bucket"
make_files
echo "   $bucket: headers, documents, 4000 small files and one of $large MiB"

say "Starting the embedded object store on it"
start_store
show "$cistern store $dir/objects --listen ${url#*://} --anonymous &"

say "Mounting the bucket read-only"
mkdir -p "$mnt"
show "$cistern mount oss://demo $mnt --endpoint $url --anonymous"
"$cistern" mount oss://demo "$mnt" --endpoint "$url" --anonymous --log-dir "$dir" | sed 's/^/   /'

say "Listing and reading it"
show "ls -l $mnt"
# shellcheck disable=SC2012 # shown to people
ls -l "$mnt" | sed 's/^/   /'
show "diff -rq $bucket $mnt"
compare

say "What the mount did"
show "$cistern stats $mnt"
"$cistern" stats "$mnt" | grep -E '^(source|store|mode)|^(requests|data)|^  (get|head|list|bytes_fetched|memory_peak) ' | sed 's/^/   /'

cat <<END

Store and mount are running; look around in $mnt. Then
   $ $cistern umount $mnt       (or: umount $mnt)
   $ ./scripts/quickstart.sh --clean    stops both and removes $dir
The manual: $cistern help mount, $cistern help store
END
