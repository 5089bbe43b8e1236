#!/bin/sh
# Builds ctwhy-core for wasm32-unknown-unknown: the proof that the engine needs no operating system.
#
# With Debian's toolchain core and alloc are built from source and there is no std at all, which is the stricter
# check; a rustup toolchain with the target installed is taken where there is one.
set -eu
cd "$(dirname "$0")/.."
. scripts/env.sh

target=wasm32-unknown-unknown
set -- build --locked -p ctwhy-core --lib --target $target --target-dir target/wasm

native=$(rustc --print target-libdir --target $target 2>/dev/null) || native=
if [ -n "$native" ] && [ -d "$native" ]; then
    exec cargo "$@"
fi

root=/
[ -d /usr/lib/rustlib/src/rust/library ] || root=$tools/wasm/
for dir in "$root"usr/lib/*-linux-gnu*; do
    LD_LIBRARY_PATH=$dir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
done
RUSTC=${root}usr/bin/rustc
RUSTC_BOOTSTRAP=1 # -Z build-std is unstable, this compiler is pinned by the distribution
export LD_LIBRARY_PATH RUSTC RUSTC_BOOTSTRAP
unset RUSTFLAGS RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
exec "${root}usr/bin/cargo" "$@" -Z build-std=core,alloc
