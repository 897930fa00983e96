"""How often SDL presents its windows."""

import os
import struct
import subprocess

from .case import SCRATCH

_SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sdl_presents.c")
_COUNT = struct.Struct("=Q")


class Presents:
    """Counts them, in a QEMU that runs with its `environment`."""

    def __init__(self):
        library, self._path = os.path.join(SCRATCH, "sdl_presents.so"), os.path.join(SCRATCH, "sdl_presents")
        subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl"], check=True)
        with open(self._path, "wb") as file:
            file.write(bytes(_COUNT.size))
        self.environment = {"LD_PRELOAD": library, "SDL_PRESENTS": self._path}

    def count(self):
        """How many there were so far."""
        with open(self._path, "rb") as file:
            return _COUNT.unpack(file.read(_COUNT.size))[0]
