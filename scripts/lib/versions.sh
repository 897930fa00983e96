#!/usr/bin/env bash
# The version number stands in several files: they must agree with Cargo.toml's.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cd "$ROOT"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
wrong=0

# expect FILE WHAT WANT HAVE
expect() {
    if [[ $3 == "$4" ]]; then
        say "$1: $2 $4"
    else
        say "$1: $2 is '$4', Cargo.toml says '$3'"
        wrong=1
    fi
}

[[ -n $version && -n $minimum ]] || die "Cargo.toml has no version or no rust-version"
for package in vfio-display vgpu; do
    expect Cargo.lock "$package's version" "$version" \
        "$(awk -v name="\"$package\"" '$1 == "name" && $3 == name { getline; gsub(/"/, "", $3); print $3 }' Cargo.lock)"
done
[[ ! -e meson.build ]] || expect meson.build "the version" "$version" \
    "$(sed -n "s/.*version: *'\([0-9.]*\)'.*/\1/p" meson.build | head -n 1)"
# Before the first release the changelog has no number in it.
newest=$(sed -n 's/^## *\[\{0,1\}\([0-9][0-9.]*\).*/\1/p' CHANGELOG.md 2>/dev/null | head -n 1)
[[ -z $newest ]] || expect CHANGELOG.md "the newest entry" "$version" "$newest"
[[ ! -e README.md ]] || ! grep -q 'Rust [0-9]' README.md || expect README.md "the oldest Rust" "$minimum" \
    "$(grep -oE 'Rust [0-9]+\.[0-9]+' README.md | head -n 1 | cut -d' ' -f2)"
exit "$wrong"
