#!/bin/sh
# Puts in place what building, the lab and the tests need, or names it.
#
#   scripts/setup.sh [base|ci|wasm|book]...     (default: base)
#
# base  C compiler, libmnl and the network tools. Root: apt-get install. Anyone else: the same Debian packages are
#       downloaded through a private apt state and unpacked under target/tools, without any privilege.
# ci    base, and what a few tests can do without but CI may not: tshark and Python, to read what we write; slirp4netns
#       and pasta, to be told apart from a NAT that rewrites packets.
# wasm  a toolchain that can build for wasm32-unknown-unknown, unless there is one. Always private: nobody wants a
#       second rustc in /usr/bin for the sake of one check.
# book  mdBook, built by cargo into target/tools.
#
# When everything is there this costs a few milliseconds.
set -eu
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" -eq 0 ]; }

# Prints the Debian packages of a group that are missing, one a line.
missing_packages() { # GROUP
    tools_needed='ip:iproute2 iptables:iptables ip6tables-save:iptables nft:nftables conntrack:conntrack
        traceroute:traceroute ping:iputils-ping pkg-config:pkg-config'
    [ "$1" != ci ] || tools_needed="$tools_needed tshark:tshark slirp4netns:slirp4netns pasta:passt python3:python3"
    for pair in $tools_needed; do
        have "${pair%%:*}" || echo "${pair#*:}"
    done
    { have pkg-config && pkg-config --exists libmnl; } || echo libmnl-dev
    # A compiler without the C library's headers and start files cannot link either.
    echo 'int main(void) { return 0; }' | cc -x c - -o /dev/null 2>/dev/null || printf 'gcc\nlibc6-dev\n'
}

# Runs apt-get on lists and a cache of our own; reads the system's sources and its list of installed packages.
private_apt() {
    apt-get -qq -o Dir::State="$tools/apt/state" -o Dir::State::status=/var/lib/dpkg/status \
        -o Dir::Cache="$tools/apt/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)" "$@"
}

# Downloads packages and those of their dependencies that are not installed, into $tools/apt/debs.
# An upgrade of an installed package ("Inst name [old] …") is left alone: the installed one has to do.
download_packages() {
    rm -rf "$tools/apt"
    mkdir -p "$tools/apt/state/lists/partial" "$tools/apt/cache/archives/partial" "$tools/apt/debs"
    private_apt update || say "apt-get update complained; going on with the lists it got"
    plan=$(private_apt -s install --no-install-recommends "$@") || return 1
    names=$(printf '%s\n' "$plan" | awk '$1 == "Inst" && $3 !~ /^\[/ { print $2 }')
    [ -n "$names" ] || return 1
    # shellcheck disable=SC2086 # one word per package
    (cd "$tools/apt/debs" && private_apt download $names)
}

# Writes target/tools/bin/NAME for every program of the unpacked packages: the libraries they need are theirs alone.
# Paths are relative to the wrapper, so that a checkout can be moved.
write_wrappers() {
    mkdir -p "$tools/bin"
    (
        cd "$tools/root"
        libraries=$(for dir in usr/lib/*-linux-gnu* lib/*-linux-gnu*; do
            # shellcheck disable=SC2016 # expanded by the wrapper
            [ ! -d "$dir" ] || printf '$root/%s:' "$dir"
        done)
        extensions=
        for dir in usr/lib/*/xtables; do
            [ ! -d "$dir" ] || extensions=" XTABLES_LIBDIR=\$root/$dir"
        done
        for program in usr/sbin/* usr/bin/* sbin/* bin/*; do
            [ -x "$program" ] || continue
            # Names that Debian's alternatives would have provided, which unpacking alone does not.
            name=$(basename "$program" .db)
            case $name in
                iptables-nft* | ip6tables-nft*) name=$(echo "$name" | sed 's/-nft//') ;;
            esac
            cat >"$tools/bin/$name" <<EOF
#!/bin/sh
root=\${0%/*}/../root
LD_LIBRARY_PATH=${libraries%:}$extensions exec "\$root/$program" "\$@"
EOF
            chmod +x "$tools/bin/$name"
        done
    )
}

# Gives the linker and pkg-config a libmnl: the unpacked one, or the system's when only its development files lacked.
link_libmnl() {
    have pkg-config && pkg-config --exists libmnl && return
    mkdir -p "$tools/lib/pkgconfig"
    (
        cd "$tools/lib"
        for library in ../root/usr/lib/*/libmnl.so.0 /usr/lib/*/libmnl.so.0 /lib/*/libmnl.so.0; do
            [ -e "$library" ] || continue
            ln -sf "$library" libmnl.so
            ln -sf "$library" libmnl.so.0
            # shellcheck disable=SC2016 # expanded by pkg-config
            sed -e 's|^prefix=.*|prefix=${pcfiledir}/../../root/usr|' -e 's|^libdir=.*|libdir=${pcfiledir}/..|' \
                ../root/usr/lib/*/pkgconfig/libmnl.pc >pkgconfig/libmnl.pc
            break
        done
    )
}

unpack_base() { # PACKAGES: what an ordinary user can do
    have apt-get && have dpkg || return 1
    say "no root: unpacking $* under target/tools instead"
    download_packages "$@" || return 1
    for deb in "$tools"/apt/debs/*.deb; do
        dpkg -x "$deb" "$tools/root" || return 1
    done
    rm -rf "$tools/apt"
    write_wrappers
    . scripts/env.sh
    link_libmnl
}

install_base() { # PACKAGES: what root can do
    have apt-get || return 1
    say "installing $*"
    find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mtime -1 2>/dev/null | grep -q . \
        || apt-get -qq update || say "apt-get update complained; going on with the lists it got"
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

setup_packages() { # GROUP
    have cargo || die "Rust is missing: install Rust 1.88 or newer (https://rustup.rs), then try again."
    packages=$(missing_packages "$1" | sort -u | tr '\n' ' ')
    [ -n "$packages" ] || return 0
    # shellcheck disable=SC2086 # one word per package
    if is_root; then
        install_base $packages || say "apt-get could not install them"
    else
        # A compiler cannot simply be unpacked elsewhere; everything else can.
        unpackable=$(printf '%s\n' $packages | grep -vxE 'gcc|libc6-dev' | tr '\n' ' ')
        [ -z "$unpackable" ] || unpack_base $unpackable || say "could not unpack them"
    fi
    . scripts/env.sh
    packages=$(missing_packages "$1" | sort -u | tr '\n' ' ')
    [ -z "$packages" ] || die "still missing: $packages
setup: on Debian or Ubuntu, as root:
setup:     apt-get update && apt-get install --no-install-recommends $packages
setup: elsewhere install what these packages hold, then try again."
}

# Prints where a complete Debian web toolchain stands: "/" when installed, an unpacked root, or nothing.
wasm_root() {
    for root in / "$tools/wasm/"; do
        if [ -x "${root}usr/bin/rustc" ] && [ -x "${root}usr/bin/cargo" ] \
            && [ -d "${root}usr/lib/rustlib/src/rust/library" ]; then
            echo "$root"
            return
        fi
    done
}

setup_wasm() {
    native=$(rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null) || native=
    [ -z "$native" ] || [ ! -d "$native" ] || return 0
    [ -z "$(wasm_root)" ] || return 0
    say "this rustc has no wasm32-unknown-unknown; unpacking Debian's rustc-web under target/tools/wasm"
    if have apt-get && have dpkg && download_packages rustc-web cargo-web rust-web-src; then
        rm -rf "$tools/wasm" "$tools/wasm.part"
        mkdir -p "$tools/wasm.part"
        for deb in "$tools"/apt/debs/*.deb; do
            case $deb in
                # The sources hold LLVM and the compiler too; only the standard library is of use.
                */rust-web-src_*) dpkg-deb --fsys-tarfile "$deb" \
                    | tar -x -C "$tools/wasm.part" --wildcards './usr/lib/*' './usr/src/*/library/*' ;;
                *) dpkg -x "$deb" "$tools/wasm.part" ;;
            esac
        done
        rm -rf "$tools/apt"
        mv "$tools/wasm.part" "$tools/wasm"
    fi
    [ -n "$(wasm_root)" ] || die "no toolchain for wasm32-unknown-unknown. One of these gives one:
setup:     rustup target add wasm32-unknown-unknown
setup:     apt-get install rustc-web cargo-web rust-web-src     (Debian 12, as root)"
}

setup_book() {
    have mdbook && return
    say "building mdBook under target/tools (once, a few minutes)"
    cargo install --quiet --locked --no-default-features --features search --root "$tools" mdbook \
        || die "mdbook is missing and could not be built: cargo install mdbook"
}

[ $# -gt 0 ] || set -- base
for group in "$@"; do
    case $group in
        base | ci) setup_packages "$group" ;;
        wasm) setup_wasm ;;
        book) setup_book ;;
        *) die "unknown group '$group'; the groups are base, ci, wasm and book" ;;
    esac
done
