# shellcheck shell=bash
# The Rust toolchain, and the programs of this workspace that the scripts run.
#
# Needs common.sh and apt.sh.

# What the workspace's crates and their dependencies are built with.
readonly RUST_PACKAGES=(ca-certificates gcc libc6-dev pkg-config libglib2.0-dev libepoxy-dev)

# rust_minimum: the oldest Rust that the workspace builds with, from Cargo.toml.
rust_minimum() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1; }

# need_cargo: cargo of at least that version, or the end of the script. Call it early: without
# cargo everything else is wasted time.
need_cargo() {
    local minimum found='' directory
    minimum=$(rust_minimum)
    # rustup's may be there without being on PATH.
    for directory in '' "${HOME:-/root}/.cargo/bin:"; do
        found=$(PATH=$directory$PATH version_of cargo --version)
        if [[ -n $found ]] && version_at_least "$found" "$minimum"; then
            PATH=$directory$PATH
            return
        fi
    done
    if on_debian && [[ -z $found && $(debian_codename) != @(buster|bullseye|bookworm) ]]; then
        need_packages "the Rust toolchain" cargo rustc
        found=$(version_of cargo --version)
        version_at_least "$found" "$minimum" && return
    fi
    die "cargo $minimum or later is needed; found: ${found:-none}." \
        "Debian 13 has one (packages cargo and rustc); on Debian 12 install it with rustup" \
        "(https://rustup.rs), which puts it into ~/.cargo/bin, then run this again."
}

# need_cargo_command COMMAND PACKAGE: a command of cargo that comes with rustup, but in a package of
# its own with Debian's cargo.
need_cargo_command() {
    cargo "$1" --version >/dev/null 2>&1 && return
    [[ $(command -v cargo) == /usr/bin/cargo ]] ||
        die "cargo $1 is missing; get it with: rustup component add ${1/#fmt/rustfmt}"
    need_packages "cargo $1" "$2"
}

# build_vgpu: builds the vGPU and sets VGPU to its path.
build_vgpu() {
    need_cargo
    need_packages "the Rust programs" "${RUST_PACKAGES[@]}"
    cargo_logged "building vgpu" cargo-vgpu build --locked --release -p vgpu
    # shellcheck disable=SC2034  # read by the callers
    VGPU=${CARGO_TARGET_DIR:-$ROOT/target}/release/vgpu
}

# cargo_logged WHAT LOGNAME ARG...: cargo in the project's root, quietly.
cargo_logged() {
    local what=$1 log=$2
    shift 2
    logged "$what" "$log" env --chdir="$ROOT" cargo "$@"
}
