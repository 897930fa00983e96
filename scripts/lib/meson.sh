# shellcheck shell=bash
# Meson, young enough for QEMU.
#
# Needs common.sh and apt.sh.

# need_meson: sets PYTHON to one that has meson and what else QEMU's configure wants, so that it
# need not download anything; meson itself is then meson_command.
need_meson() {
    local venv=$BUILD/venv
    PYTHON=/usr/bin/python3
    [[ -x $PYTHON ]] || PYTHON=python3
    if on_debian && [[ $(debian_codename) != bookworm ]]; then
        need_packages "meson builds" meson python3-distlib ninja-build
    fi
    if version_at_least "$(version_of meson --version)" 1.5 &&
        "$PYTHON" -c 'import mesonbuild, distlib' 2>/dev/null; then
        return
    fi
    [[ -e $venv/.complete ]] || with_lock venv make_venv "$venv"
    PYTHON=$venv/bin/python
}

make_venv() {
    local venv=$1
    [[ ! -e $venv/.complete ]] || return 0
    say "  a Python environment with meson, from PyPI: $venv"
    rm -rf "$venv"
    logged "making a Python environment" venv "$PYTHON" -m venv "$venv"
    logged "installing meson from PyPI" venv-pip "$venv/bin/pip" install --quiet \
        meson==1.9.1 pycotap==1.3.1 distlib==0.4.0
    touch "$venv/.complete"
}

# meson_command ARG...: after need_meson.
meson_command() { "$PYTHON" -m mesonbuild.mesonmain "$@"; }
