"""C libraries to preload into QEMU: lib/NAME.c says what each does."""

import os
import subprocess

from .case import SCRATCH

_HERE = os.path.dirname(os.path.abspath(__file__))


def build(name):
    """Builds one, and returns its path."""
    library = os.path.join(SCRATCH, f"{name}.so")
    source = os.path.join(_HERE, f"{name}.c")
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library
