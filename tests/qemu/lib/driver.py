"""An OpenGL driver that exports textures, which Mesa's software renderer does not."""

from . import preload


def environment(planes=1):
    """Returns the environment to use it. `planes`: how many planes an exported texture has."""
    return {"LD_PRELOAD": preload.build("exporting_driver"), "EXPORTED_PLANES": str(planes)}
