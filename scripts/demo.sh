#!/bin/sh
# The demo: a real traceroute through a real kernel NAT, each packet explained beside the kernel's own decision.
# Where no lab can be built (exit code 4), the capture inside the binary is explained instead.
set -eu
cd "$(dirname "$0")/.."
. scripts/env.sh

ctwhy() { cargo run --quiet --locked -p ctwhy -- "$@"; }

status=0
ctwhy lab run traceroute || status=$?
[ "$status" -eq 4 ] || exit "$status"
printf '\nNo lab on this machine, for the reason above. Instead: the same journey as a kernel recorded it.\n\n'
ctwhy explain -v
