"""Region mode: the kernel's mdpy."""

from cases_mbochs import device
from hardware import Mdpy
from harness import case
from pictures import Picture

SLOT = 4


def start(test, kind, display="none", extra=(), environment=None, **properties):
    qemu = test.qemu([device(test.mdev(kind), **properties)], display=display, extra=extra, environment=environment)
    return qemu, Mdpy(qemu, SLOT)


def initial(width, height):
    """Returns what mdpy's reset leaves: a grey gradient."""
    rows = (bytes([y * 255 // height]) * width * 3 for y in range(height))
    return Picture(width, height, b"".join(rows))


def draws(test, kind, width, height):
    qemu, gpu = start(test, kind)
    test.equal((gpu.width, gpu.height), (width, height), "the capability's mode")
    test.shows(qemu, initial(width, height), "the first picture")
    for seed in (1, 2):
        test.shows(qemu, gpu.draw(seed), f"noise {seed}")


@case("region mode at 640x480, drawn twice", driver="mdpy")
def mdpy_vga(test):
    draws(test, "vga", 640, 480)


@case("region mode at 1024x768, drawn twice", driver="mdpy")
def mdpy_xga(test):
    draws(test, "xga", 1024, 768)


@case("region mode at 1920x1080, drawn twice", driver="mdpy")
def mdpy_hd(test):
    draws(test, "hd", 1920, 1080)
