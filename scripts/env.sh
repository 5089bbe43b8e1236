# shellcheck shell=sh
# The environment of every target. Source it from the top of the project: . scripts/env.sh
# Then `ctwhy` is the program that `make build` made.
#
# What `make setup` could not install on the system it unpacked under target/tools; that comes first. An ordinary
# user's PATH on Debian lacks the sbin directories, where iptables and conntrack live; they come last.
tools=$PWD/target/tools
PATH=$tools/bin:$PATH:$PWD/target/release:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:/usr/local/sbin:/usr/sbin:/sbin
export PATH
if [ -d "$tools/lib" ]; then
    LD_LIBRARY_PATH=$tools/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    PKG_CONFIG_PATH=$tools/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
    export LD_LIBRARY_PATH PKG_CONFIG_PATH
fi
