"""Mesa's EGL with the quirks of another driver: see tests/quirks."""

import grp
import json
import os
import struct

from .case import QUIRKS as LIBRARIES, SCRATCH, Failure, say, until

# Quirks that any front end may meet.
QUIRKS = ("external", "refuse-image", "pitch256", "no-image-target", "image-storage", "no-modifiers", "bad-modifier-query",
          "native-fences", "lost-context")

# What tests/quirks/quirks.c counts.
_OBJECTS = "images", "textures of images", "syncs", "contexts"
_COUNTS = struct.Struct(f"{len(_OBJECTS)}i")


class RenderNodes:
    """A /dev/dri for a QEMU with this `environment`. The files in `locked` cannot be opened."""

    def __init__(self, *names, locked=()):
        self._directory = os.path.join(SCRATCH, "dri")
        os.mkdir(self._directory)
        for name in names + locked:
            with open(os.path.join(self._directory, name), "wb") as file:
                os.fchmod(file.fileno(), 0o660 if name in names else 0)
        self.group = grp.getgrgid(os.stat(os.path.join(self._directory, (names + locked)[0])).st_gid).gr_name
        self.environment = {"LD_PRELOAD": os.path.join(LIBRARIES, "libnodes.so"), "RENDER_NODES": self._directory}


class Driver:
    """An EGL with one quirk, for a QEMU that runs with its `environment`."""

    def __init__(self, quirk):
        self._objects = os.path.join(SCRATCH, "objects")
        with open(self._objects, "wb") as file:
            file.write(bytes(_COUNTS.size))
        vendor = os.path.join(SCRATCH, "vendor.json")
        with open(vendor, "w", encoding="utf-8") as file:
            json.dump({"file_format_version": "1.0.0", "ICD": {"library_path": os.path.join(LIBRARIES, "libquirks.so")}}, file)
        self.environment = {"__EGL_VENDOR_LIBRARY_FILENAMES": vendor, "EGL_QUIRK": quirk, "EGL_QUIRK_OBJECTS": self._objects}

    def fences(self):
        """Returns how many fences QEMU has."""
        return self._left().get("syncs", 0)

    def _left(self):
        with open(self._objects, "rb") as file:
            counts = _COUNTS.unpack(file.read())
        return {name: count for name, count in zip(_OBJECTS, counts) if count}

    def end(self, vgpu, qemu):
        """Unplugs the vGPU, and checks that nothing created for it is left."""
        qemu.qmp("device_del", id=vgpu.name)
        qemu.qmp("system_reset")
        qemu.wait_event("DEVICE_DELETED")
        try:
            until("the end of all objects", lambda: not self._left(), 5)
        except Failure:
            raise Failure(f"left when the vGPU has gone: {self._left()}") from None
        say("    unplugged: no object left")
