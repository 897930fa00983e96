"""An OpenGL driver that exports textures, as GPUs' drivers do and Mesa's software renderer does not."""

from . import preload


def environment(planes=1):
    """What QEMU needs to use it. `planes`: how many textures have when they are exported, all in one file."""
    return {"LD_PRELOAD": preload.build("exporting_driver"), "EXPORTED_PLANES": str(planes)}
