#!/usr/bin/env bash
# Shell scripts pass shellcheck.
set -eu
cd "$(dirname "$0")/../.."
git ls-files --cached --others --exclude-standard 'scripts/*' '*.sh' .ci/run bench |
	while read -r file; do
		if [ -f "$file" ] && head -n 1 "$file" | grep -qE '^#!.*\b(ba)?sh\b' || [[ $file == *.sh ]]; then echo "$file"; fi
	done | sort -u | xargs shellcheck -x -S warning -s bash
