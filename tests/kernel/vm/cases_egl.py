"""OpenGL beside vgem, a render node without a GPU, and dma-bufs that Mesa exports."""

import os
import re
from functools import partial

import cases_mbochs as mbochs
import front_ends
from harness import case, wait_for

NODE = "/dev/dri/renderD128"
VNC = "/run/tmp/vnc"
STOCK = "it has no x-display-options"
REFUSED = "EGL import: EGL draws with the CPU on a DRM device that is no GPU, and cannot read what others export"


def vgem(test):
    test.modules.load("vgem")
    wait_for("vgem's render node", lambda: os.path.exists(NODE))


def zink(test):
    """OpenGL on Vulkan on the CPU, which exports and imports dma-bufs differently from llvmpipe."""
    return {"GALLIUM_DRIVER": "zink", "VK_DRIVER_FILES": test.config["vulkan"]}


def drawn_and_flipped(test, qemu, gpu):
    """Checks pictures as VNC gets them."""
    width, height = 128, 96
    gpu.mode(width, height)
    want = gpu.draw(1, width, height)
    vnc = test.vnc(VNC)
    test.sees(vnc.picture, want, "the picture over VNC")
    for seed in (2, 3):
        offset = (seed - 2) * width * height * 4
        gpu.pan(0, (seed - 2) * height)
        want = gpu.draw(seed, width, height, offset=offset)
        test.sees(vnc.picture, want, f"picture {seed} over VNC")


def start(test, display, environment=None, **properties):
    return mbochs.start(test, "small", display, ["-vnc", f"unix:{VNC}"], environment, **properties)


# Otherwise llvmpipe ends with SIGSEGV: Mesa has the node's driver map imports, which it refuses.
@case("vgem's render node, with software OpenGL: dma-bufs are not imported", driver="mbochs_rw", stock=STOCK)
def vgem_egl(test):
    vgem(test)
    qemu, gpu = start(test, f"egl-headless,rendernode={NODE}", **front_ends.IMPORTED)
    drawn_and_flipped(test, qemu, gpu)
    said = [message for message in qemu.messages() if REFUSED in message]
    test.equal((len(said), len(qemu.messages())), (1, 1), f"messages ({qemu.messages()})")


@case("vgem's render node, with zink: dma-bufs are imported", driver="mbochs_rw", stock=STOCK, long=True)
def vgem_zink(test):
    vgem(test)
    qemu, gpu = start(test, f"egl-headless,rendernode={NODE}", zink(test), **front_ends.IMPORTED)
    drawn_and_flipped(test, qemu, gpu)
    status = qemu.qmp("human-monitor-command", **{"command-line": "info vfio-display"})
    test.check(re.search(r"shows scanout.* 2 dma-bufs are textures now", status, re.DOTALL), status)
    test.equal(qemu.messages(), [], "what QEMU said")


def exported(test, front_end):
    """Checks surfaces that QEMU draws as textures and exports, for clients that get dma-bufs."""
    _, gpu, view = front_end(test, partial(mbochs.start, test, "small", **{"x-display-options": "import=off"}), True)
    client = view()
    for seed, size in enumerate(((128, 96), (128, 96), (160, 128))):
        if seed != 1:
            gpu.mode(*size)
        want = gpu.draw(seed, *size)
        test.sees(lambda: front_ends.picture(client), want, f"picture {seed}")
    # A client may have a picture before it is notified.
    wait_for("the client hears of a dma-buf", lambda: any(scanout.startswith("dma-buf 160x128") for scanout in client.scanouts))


@case("SPICE with OpenGL: surfaces are exported as dma-bufs", driver="mbochs_rw", stock=STOCK, long=True)
def export_spice(test):
    exported(test, front_ends.spice)


@case("D-Bus with OpenGL: surfaces are exported as dma-bufs", driver="mbochs_rw", stock=STOCK, long=True)
def export_dbus(test):
    exported(test, front_ends.dbus)
