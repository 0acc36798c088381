#!/usr/bin/env bash
# Shell scripts pass shellcheck. (SC2034: variables that lib.sh reads; SC2140: words of several quoted parts; SC1091: lib.sh is found at run time.)
set -eu
cd "$(dirname "$0")/../.."
git ls-files --cached --others --exclude-standard 'scripts/*' '*.sh' .ci/run bench |
	while read -r file; do
		if [ -f "$file" ] && head -n 1 "$file" | grep -qE '^#!.*\b(ba)?sh\b' || [[ $file == *.sh ]]; then echo "$file"; fi
	done | sort -u | xargs shellcheck -S warning -e SC2034,SC2140,SC1091 -s bash
