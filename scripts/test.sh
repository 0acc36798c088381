#!/usr/bin/env bash
# Installs what the tests need and runs them: the short set, or with --long the long one too. More options: tests/run.py --help.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
if ! ./scripts/install-packages.sh test; then
	echo "the packages for the tests could not be installed"
	echo "0 passed, 1 failed"
	exit 1
fi
exec /usr/bin/python3 tests/run.py "$@"
