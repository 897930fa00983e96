"""OpenGL beside a render node that is no GPU's: the kernel's vgem, and dma-bufs that Mesa exports of its own textures."""

import os
import re
import sys

from cases_mbochs import device
from hardware import Mbochs
from harness import case, wait_for
from pictures import Picture

NODE = "/dev/dri/renderD128"
SLOT = 4
VNC = "/run/tmp/vnc"
# What egl-headless can read itself, it does not import, unless asked to.
IMPORTED = {"x-display-options": "read-back=on"}
STOCK = "it has no x-display-options"
REFUSED = "EGL import: EGL draws with the CPU on a DRM device that is no GPU, and cannot read what others export"


def vgem(test):
    test.modules.load("vgem")
    wait_for("vgem's render node", lambda: os.path.exists(NODE))


def zink(test):
    """OpenGL on Vulkan on the CPU, which exports and imports dma-bufs by other ways than llvmpipe alone."""
    return {"GALLIUM_DRIVER": "zink", "VK_DRIVER_FILES": test.config["vulkan"]}


def drawn_and_flipped(test, qemu, gpu):
    """Pictures as VNC gets them."""
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
    qemu = test.qemu([device(test.mdev("small"), **properties)], display=display, extra=["-vnc", f"unix:{VNC}"],
                     environment=environment)  # fmt: skip
    return qemu, Mbochs(qemu, SLOT)


# Else it is SIGSEGV in llvmpipe: Mesa has the node's driver map what it imports, which refuses.
@case("vgem's render node, with software OpenGL: dma-bufs are not imported", driver="mbochs_rw", stock=STOCK)
def vgem_egl(test):
    vgem(test)
    qemu, gpu = start(test, f"egl-headless,rendernode={NODE}", **IMPORTED)
    drawn_and_flipped(test, qemu, gpu)
    said = [message for message in qemu.messages() if REFUSED in message]
    test.equal((len(said), len(qemu.messages())), (1, 1), f"messages ({qemu.messages()})")


@case("vgem's render node, with zink: dma-bufs are imported", driver="mbochs_rw", stock=STOCK, long=True)
def vgem_zink(test):
    vgem(test)
    qemu, gpu = start(test, f"egl-headless,rendernode={NODE}", zink(test), **IMPORTED)
    drawn_and_flipped(test, qemu, gpu)
    status = qemu.qmp("human-monitor-command", **{"command-line": "info vfio-display"})
    test.check(re.search(r"shows scanout.* 2 dma-bufs are textures now", status, re.DOTALL), status)
    test.equal(qemu.messages(), [], "what QEMU said")


def exported(test, client, gpu):
    """Surfaces are textures that QEMU draws and exports, for clients that are handed dma-bufs. Of mbochs whole pages can be read."""
    for seed, size in enumerate(((128, 96), (128, 96), (160, 128))):
        if seed != 1:
            gpu.mode(*size)
        want = gpu.draw(seed, *size)

        def picture():
            image = client.picture()
            return image and Picture(*image.size, image.tobytes())

        test.sees(picture, want, f"picture {seed}")
    test.check(any(scanout.startswith("dma-buf 160x128") for scanout in client.scanouts), f"no dma-buf: {client.scanouts}")


def clients():
    """The display tests' clients of SPICE and D-Bus."""
    for name in ("QEMU", "VGPU", "QUIRKS", "OUTPUT"):
        os.environ.setdefault(f"VFIO_DPY_TEST_{name}", "")
    os.environ.setdefault("VFIO_DPY_TEST_VARIANT", "enabled")
    sys.path.append(os.path.join(os.path.dirname(__file__), "../../qemu"))
    from lib import dbus, spice  # pylint: disable=import-outside-toplevel

    return spice, dbus


def spice_exports(test, environment=None):
    spice, _ = clients()
    qemu = test.qemu([device(test.mdev("small"), **{"x-display-options": "import=off"})], extra=spice.arguments(True),
                     environment=environment)  # fmt: skip
    gpu = Mbochs(qemu, SLOT)
    with spice.Spice() as client:
        exported(test, client, gpu)


@case("SPICE with OpenGL: surfaces are exported as dma-bufs", driver="mbochs_rw", stock=STOCK, long=True)
def export_spice(test):
    spice_exports(test)


@case("D-Bus with OpenGL: surfaces are exported as dma-bufs", driver="mbochs_rw", stock=STOCK, long=True)
def export_dbus(test):
    _, dbus = clients()
    qemu = test.qemu([device(test.mdev("small"), **{"x-display-options": "import=off"})], display="dbus,p2p=yes,gl=on")
    gpu = Mbochs(qemu, SLOT)
    with dbus.DBusScreen(qemu) as client:
        exported(test, client, gpu)
