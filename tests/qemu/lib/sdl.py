"""How often SDL presents its windows."""

import os
import struct

from . import preload
from .case import SCRATCH

_COUNT = struct.Struct("=Q")


class Presents:
    """Counts presentations, in a QEMU that runs with its `environment`."""

    def __init__(self):
        self._path = os.path.join(SCRATCH, "sdl_presents")
        with open(self._path, "wb") as file:
            file.write(bytes(_COUNT.size))
        self.environment = {"LD_PRELOAD": preload.build("sdl_presents"), "SDL_PRESENTS": self._path}

    def count(self):
        """Returns how many there were so far."""
        with open(self._path, "rb") as file:
            return _COUNT.unpack(file.read(_COUNT.size))[0]
