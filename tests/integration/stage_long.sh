#!/usr/bin/env bash
# The staging area for longer than the unit tests take: a million random operations, power cuts, kills.
# long
# timeout: 1800
. "$(dirname "$0")/lib.sh"

programs="${CISTERN_BUILD:-$(dirname "$CISTERN")/../..}/tests/unit/stage"
[ -x "$programs/test_stage_model" ] || skip "the unit tests aren't built"

run() {
	local name=$1
	shift
	env "$@" "$programs/test_stage_$name" >"$WORK/$name.log" 2>&1 || {
		tail -n 20 "$WORK/$name.log"
		return 1
	}
}
check "1,000,000 random operations agree with the model" run model CST_STAGE_OPERATIONS=1000000
check "what was confirmed survives 100,000 power cuts" run crash CST_STAGE_OPERATIONS=100000
check "and 300 kills" run process CST_STAGE_KILLS=300
