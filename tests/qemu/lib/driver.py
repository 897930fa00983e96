"""An OpenGL driver that exports textures, as GPUs' drivers do and Mesa's software renderer does not."""

import os
import subprocess

from .case import SCRATCH

_SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "exporting_driver.c")


def environment(planes=1):
    """What QEMU needs to use it. `planes`: how many textures have when they are exported, all in one file."""
    library = os.path.join(SCRATCH, "exporting_driver.so")
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl"], check=True)
    return {"LD_PRELOAD": library, "EXPORTED_PLANES": str(planes)}
