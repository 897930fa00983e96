"""QEMU's modules: with --enable-modules, front ends and others are loaded on demand."""

from pathlib import Path

from .case import QEMU


def modules():
    """Returns their directory: beside a QEMU that was only built, else where it is installed."""
    built = Path(QEMU).resolve().parent
    return sorted([*built.glob("*-*.so"), *built.parent.glob("lib/qemu/*.so"), *built.parent.glob("lib/*/qemu/*.so")])
