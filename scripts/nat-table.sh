#!/bin/sh
# Writes the table of book/src/nat-table.md afresh: every NAT of the lab that is installed here, asked by `ctwhy conform nat`.
# What is not installed is skipped aloud and has no column: nothing of an earlier run is kept.
set -eu
cd "$(dirname "$0")/.."
. scripts/env.sh

work=$PWD/target/nat-table
page=book/src/nat-table.md
mkdir -p "$work"

status=0
target/debug/ctwhy conform nat --lab all --markdown --output "$work/failures" >"$work/table.md" || status=$?
# 1: some NAT does not do what is asked, which is what the table is about.
[ "$status" -le 1 ] || exit "$status"

version() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || return 0
    said=$("$1" --version 2>/dev/null | sed -n '1p')
    # pasta of Debian 12 does not know its own.
    case $said in
        *unknown*) said="$1 $(dpkg-query -W -f '${Version}' "$2" 2>/dev/null || echo 'of an unknown version')" ;;
    esac
    printf ', %s' "$said"
}

{
    sed '/^<!-- measured -->$/q' "$page"
    printf '\nMeasured with Linux %s%s%s.\n\n' "$(uname -r | sed 's/-.*//')" "$(version slirp4netns slirp4netns)" "$(version pasta passt)"
    cat "$work/table.md"
} >"$work/page.md"
# One empty line at the end is one too many.
sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' "$work/page.md" >"$page"
echo "$page is written; the packets of what failed are in target/nat-table/failures"
