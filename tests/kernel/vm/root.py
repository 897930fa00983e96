"""The VM's root is the host's, and read-only; what a test must write to lies above it, in memory."""

import os
import subprocess

_writable = set()


def make_writable(modules, *directories):
    """Until the VM ends. What the host has there is still seen."""
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
