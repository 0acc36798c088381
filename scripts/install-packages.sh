#!/usr/bin/env bash
# Installs the packages of Debian 12 that Cistern needs: install-packages.sh build|run|test … (test includes the others).
# What is there already is left alone, so that it also works without a network then.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)

build=(build-essential meson ninja-build pkg-config libssl-dev libcurl4-openssl-dev libexpat1-dev libsqlite3-dev libjansson-dev
	libyaml-dev libxxhash-dev libisal-dev)
run=(fuse3 ca-certificates)
tests=(git libcmocka-dev clang clang-format clang-tidy llvm libclang-rt-14-dev curl jq awscli s3cmd rclone s3fs python3 python3-boto3
	openssl iproute2 procps gdb attr mandoc shellcheck bash-completion strace)

wanted=()
with_npm=
for set in "$@"; do
	case $set in
	build) wanted+=("${build[@]}") ;;
	run) wanted+=("${run[@]}") ;;
	test)
		wanted+=("${build[@]}" "${run[@]}" "${tests[@]}")
		# Node.js from elsewhere brings npm along and excludes Debian's.
		command -v npm >/dev/null || wanted+=(nodejs npm)
		with_npm=1
		;;
	*)
		echo "install-packages.sh: unknown set $set; usage: install-packages.sh build|run|test …" >&2
		exit 2
		;;
	esac
done

missing=()
for package in "${wanted[@]}"; do
	dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
	as_root=()
	[ "$(id -u)" = 0 ] || as_root=(sudo)
	echo "installing: ${missing[*]}"
	"${as_root[@]}" apt-get update -qq
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# The Node.js client of OSS is not a Debian package. Its version is pinned in package.json.
if [ -n "$with_npm" ] && [ ! -d "$top/tests/clients/node_modules/ali-oss" ]; then
	echo "installing: ali-oss (npm)"
	npm install --prefix "$top/tests/clients" --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error
fi
