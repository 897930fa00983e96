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

# can_find_races: whether need_cargo_for_races can be met.
can_find_races() { on_debian && [[ $(debian_codename) != bookworm ]]; }

# need_cargo_for_races: from here on, cargo builds for the thread sanitizer, the standard library
# included: whatever that synchronises would otherwise look like a race. Sets CLANG to the compiler
# that brings the sanitizer's runtime; Rust's own is not in Debian's packages.
need_cargo_for_races() {
    local llvm
    can_find_races || die "looking for races needs Debian 13's Rust, its source, and a clang of the same LLVM"
    need_packages "the Rust toolchain" cargo rustc
    PATH=/usr/bin:$PATH
    llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    CLANG=clang-$llvm
    need_packages "the thread sanitizer" rust-src "$CLANG" "libclang-rt-$llvm-dev" "llvm-$llvm" "${RUST_PACKAGES[@]}"
    CARGO_BUILD_TARGET=$(rustc -vV | sed -n 's/^host: //p')
    # Only RUSTC_BOOTSTRAP lets stable Rust accept these flags.
    export RUSTC_BOOTSTRAP=1 CARGO_BUILD_TARGET CARGO_UNSTABLE_BUILD_STD="std panic_unwind proc_macro test"
    export RUSTFLAGS="-Zsanitizer=thread -Zexternal-clangrt -Clinker=$CLANG -Clink-arg=-fsanitize=thread"
}

# find_races: has programs under the thread sanitizer name functions, and pass over QEMU's known races.
find_races() {
    local symbolizer
    symbolizer=$(compgen -G '/usr/bin/llvm-symbolizer-*' | sort -V | tail -n 1) || true
    # Libraries that were not built for it synchronise in ways that it does not see.
    export TSAN_OPTIONS="ignore_noninstrumented_modules=1 allocator_may_return_null=1 history_size=5 suppressions=$ROOT/tests/soak/races.supp"
    TSAN_OPTIONS+=" ${symbolizer:+external_symbolizer_path=$symbolizer}"
}
