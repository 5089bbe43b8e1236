#!/bin/sh
# Runs each fuzz target for a number of seconds. What a target breaks on stays under fuzz/artifacts; made small with
# `cargo +nightly fuzz tmin`, named after what was wrong and put into fuzz/regressions, it is a test from then on.
set -eu
cd "$(dirname "$0")/../fuzz"
seconds=${1:-60}
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo 'fuzz: no cargo-fuzz on a nightly toolchain here: rustup toolchain install nightly; cargo install cargo-fuzz' >&2
    exit 1
fi
# What is found goes on top of the corpus, and not into it: that one is kept small.
found=$PWD/target/found
status=0
for target in $(cargo +nightly fuzz list); do
    mkdir -p "$found/$target"
    echo "fuzz: $target for $seconds seconds"
    cargo +nightly fuzz run "$target" "$found/$target" "corpus/$target" "regressions/$target" -- \
        -max_total_time="$seconds" -timeout=20 -print_final_stats=1 || status=$?
done
exit "$status"
