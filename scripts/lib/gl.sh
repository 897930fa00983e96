# shellcheck shell=bash
# Software OpenGL that imports dma-bufs, for machines without a GPU.
#
# Needs common.sh and apt.sh.

# The first Mesa whose llvmpipe imports dma-bufs.
readonly MESA_MINIMUM=23.3

# need_mesa: installs it, from Debian 12's backports where Debian's own is too old.
need_mesa() {
    local name version
    if ! on_debian; then
        warn "not a Debian system: Mesa $MESA_MINIMUM or later is needed for EGL without a GPU"
        return
    fi
    if [[ $(debian_codename) != bookworm ]]; then
        need_packages "OpenGL" libegl1 libgl1 libgles2 libegl-mesa0 libgl1-mesa-dri libgbm1
        return
    fi
    need_packages "OpenGL" libegl1 libgl1 libgles2
    for name in libegl-mesa0 libgl1-mesa-dri libgbm1; do
        version=$(dpkg-query -W -f '${Version}' "$name" 2>/dev/null) || version=0
        if ! version_at_least "$version" "$MESA_MINIMUM"; then
            say "Debian 12's Mesa cannot import dma-bufs without a GPU: installing the one from bookworm-backports"
            apt_backports
            apt_install backports --target-release=bookworm-backports libegl-mesa0 libgl1-mesa-dri libgbm1
            return
        fi
    done
}

# need_mesa_headers: what QEMU is built with; of the same version as the libraries, wherever those
# are from.
need_mesa_headers() {
    local headers=(libdrm-dev libgbm-dev) missing
    need_mesa
    if ! on_debian || [[ $(debian_codename) != bookworm ]]; then
        need_packages "building with OpenGL" "${headers[@]}"
        return
    fi
    mapfile -t missing < <(missing_packages "${headers[@]}")
    ((${#missing[@]})) || return 0
    say "installing Debian packages for building with OpenGL, from bookworm-backports: ${missing[*]}"
    apt_backports
    apt_install backports --target-release=bookworm-backports "${missing[@]}"
}
