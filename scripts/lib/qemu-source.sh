# shellcheck shell=bash
# QEMU's source package: from Debian's archive, or from a folder that the user names, into
# build/cache/qemu.
#
# Needs common.sh and apt.sh.

SOURCE_CACHE=$BUILD/cache/qemu
# SERIES/source.sha256 in it names the files that the patches were made against.
SOURCE_SUMS=$ROOT/qemu-patches

# cached_source SERIES: a source package that is here, complete and as it was when it was verified.
cached_source() {
    [[ -s $SOURCE_CACHE/$1.sha256 ]] &&
        (cd "$SOURCE_CACHE" && sha256sum --check --quiet "$1.sha256") >/dev/null 2>&1
}

# fetch_source SERIES: brings it there.
fetch_source() {
    cached_source "$1" && return
    # In a subshell: without a network it ends the script, and the folder must still be tried.
    mkdir -p "$SOURCE_CACHE"
    (source_from_archive "$1") || source_from_folder "$1"
}

# source_from_archive SERIES: apt checks the archive's signature and the hashes.
source_from_archive() {
    local version versions part=$SOURCE_CACHE/part
    on_debian || die "QEMU's source is fetched from Debian; on other systems give --source DIR"
    apt_private qemu-source "deb-src sid main" "deb-src trixie main" || return 1
    mapfile -t versions < <(apt_private_cache qemu-source showsrc --only-source qemu 2>/dev/null |
        sed -n 's/^Version: //p' | grep -E "^([0-9]+:)?${1//./\\.}(\.[0-9]+)?[^0-9.]" | sort -Vru)
    for version in "${versions[@]}"; do
        say "fetching QEMU $version from Debian (about 30 MB)"
        rm -rf "$part" && mkdir -p "$part" "$LOGS"
        if (cd "$part" && apt_private_get qemu-source source --download-only "qemu=$version") \
            >"$LOGS/qemu-fetch.log" 2>&1; then
            (cd "$part" && sha256sum -- *) >"$SOURCE_CACHE/$1.sha256.new"
            keep_source "$1"
            return
        fi
        warn "Debian lists QEMU $version but its files cannot be had (see $LOGS/qemu-fetch.log)"
    done
    ((${#versions[@]})) || warn "Debian's sid and trixie have no QEMU $1 any more"
    return 1
}

# source_from_folder SERIES: from $VFIO_DISPLAY_SOURCES. Nobody signed what lies there: it must be
# what qemu-patches/SERIES was made against.
source_from_folder() {
    local sums=$SOURCE_SUMS/$1/source.sha256 part=$SOURCE_CACHE/part file
    [[ -r $sums ]] || return 1
    if [[ -z ${VFIO_DISPLAY_SOURCES:-} ]]; then
        say "  VFIO_DISPLAY_SOURCES may name a folder that has it: $(awk '{ print $2 }' "$sums" | paste -sd ' ')"
        return 1
    fi
    rm -rf "$part" && mkdir -p "$part"
    while read -r _ file; do
        if ! cp -- "$VFIO_DISPLAY_SOURCES/$file" "$part/" 2>/dev/null; then
            warn "VFIO_DISPLAY_SOURCES: $VFIO_DISPLAY_SOURCES/$file cannot be read"
            return 1
        fi
    done <"$sums"
    if ! file=$(cd "$part" && sha256sum --check --quiet "$sums" 2>/dev/null); then
        warn "VFIO_DISPLAY_SOURCES: $VFIO_DISPLAY_SOURCES has another ${file%%:*} than ${sums#"$ROOT/"} says"
        return 1
    fi
    say "  taking QEMU $1's source from $VFIO_DISPLAY_SOURCES"
    cp "$sums" "$SOURCE_CACHE/$1.sha256.new"
    keep_source "$1"
}

# keep_source SERIES: what lies in part/ is complete and verified.
keep_source() {
    mv "$SOURCE_CACHE"/part/* "$SOURCE_CACHE"/ && rmdir "$SOURCE_CACHE/part" &&
        mv "$SOURCE_CACHE/$1.sha256.new" "$SOURCE_CACHE/$1.sha256"
}
