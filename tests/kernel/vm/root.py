"""Writable directories: the VM's root is the host's, read-only, so memory is mounted over parts."""

import os
import subprocess

_writable = set()


def make_writable(modules, *directories):
    """Makes a directory writable until the VM ends. The host's files stay visible in it."""
    modules.load("overlay")
    for directory in directories:
        if directory in _writable:
            continue
        above = f"/run/above{directory}"
        for name in ("upper", "work"):
            os.makedirs(f"{above}/{name}")
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o",
                        f"lowerdir={directory},upperdir={above}/upper,workdir={above}/work", directory], check=True)  # fmt: skip
        _writable.add(directory)
