"""QEMU's modules: front ends and others that it loads when they are wanted, if it was configured with --enable-modules."""

from pathlib import Path

from .case import QEMU


def modules():
    """Where they are: beside a QEMU that was only built, else where it is installed. Built in, there are none."""
    built = Path(QEMU).resolve().parent
    return sorted([*built.glob("*-*.so"), *built.parent.glob("lib/qemu/*.so"), *built.parent.glob("lib/*/qemu/*.so")])
