#!/bin/sh
# Runs every test there is and closes with one line: N passed, N failed, N skipped.
#
# A test that lacks a privilege appends "test name: reason" to the file named by CTWHY_SKIPS and returns; libtest then
# calls it passed, so it is subtracted here and read out at the end. With CI set a skip is a failure.
set -eu
cd "$(dirname "$0")/.."
. scripts/env.sh

work=$PWD/target/test-run
rm -rf "$work"
mkdir -p "$work"
CTWHY_SKIPS=$work/skips
export CTWHY_SKIPS
: >"$CTWHY_SKIPS"

# POSIX sh has no pipefail: the status travels in a file.
{ cargo test --locked --workspace --no-fail-fast 2>&1 || echo $? >"$work/status"; } | tee "$work/log"
status=$(cat "$work/status" 2>/dev/null || echo 0)

# These ran, and said that they could not.
returned=$(wc -l <"$CTWHY_SKIPS")

echo
echo 'ctwhy-core for wasm32-unknown-unknown:' | tee -a "$work/log"
if ! scripts/setup.sh wasm; then
    echo 'wasm build: no toolchain for it here' >>"$CTWHY_SKIPS"
    echo 'test result: ok. 0 passed; 0 failed; 1 ignored; wasm build' | tee -a "$work/log"
elif scripts/wasm.sh; then
    echo 'test result: ok. 1 passed; 0 failed; 0 ignored; wasm build' | tee -a "$work/log"
else
    status=1
    echo 'test result: FAILED. 0 passed; 1 failed; 0 ignored; wasm build' | tee -a "$work/log"
fi

# Prints "passed failed ignored". A test may run its own binary again, as another user or in a namespace, and show what
# that printed; so of a binary the last result counts, and what is "started by another test" is no test by itself.
# Doc tests come in several runs, which all count.
count() {
    sed 's/\x1b\[[0-9;]*m//g' "$work/log" | awk '
        function close_run() {
            passed += p; failed += f; ignored += i
            for (name in started) { ignored--; delete started[name] }
            p = f = i = 0
        }
        / Running .*\(.*\)$/ || / Doc-tests / || /^ctwhy-core for wasm32/ { close_run(); sum = / Doc-tests / }
        /^test .* \.\.\. ignored, started by another test$/ { started[$2] }
        /^test result:/ {
            if (!sum) p = f = i = 0
            for (at = 2; at <= NF; at++) {
                if ($at == "passed;") p += $(at - 1)
                if ($at == "failed;") f += $(at - 1)
                if ($at == "ignored;") i += $(at - 1)
            }
        }
        END { close_run(); print passed + 0, failed + 0, ignored + 0 }'
}
# shellcheck disable=SC2046 # three numbers
set -- $(count)
passed=$(($1 - returned))
failed=$2
skipped=$(($3 + returned))

if [ -s "$CTWHY_SKIPS" ]; then
    printf '\nSkipped, each for want of something this machine does not give:\n'
    sed 's/^/skipped: /' "$CTWHY_SKIPS"
    if [ -n "${CI:-}" ]; then
        echo 'CI is set, so that is a failure.'
        status=1
    fi
fi
# What does not compile has no result line, and still failed.
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
    failed=1
fi
printf '\n%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
exit "$status"
