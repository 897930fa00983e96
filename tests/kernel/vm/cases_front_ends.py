"""What a client of each front end is shown of the kernel's vGPUs, pixel for pixel."""

from functools import partial

import cases_mbochs
import cases_mdpy
import cases_vgpu
import front_ends
from harness import case, wait_for

# GTK's window has at least the first of these sizes, all of whole pages, as mbochs needs.
MODES = (320, 240), (384, 256)


def shows(test, client, want, what):
    test.sees(lambda: front_ends.picture(client), want, what)


def new_mode(gpu, view, size):
    """Returns the client of a mode that is set now."""
    gpu.mode(*size)
    gpu.fill(*size)
    return view(*size)


def dma_bufs(start, test, front_end, opengl, as_what):
    """Checks modes, drawing in place, a flip, and the plane off and on."""
    qemu, gpu, view = front_end(test, partial(start, test), opengl)
    for seed, size in enumerate(MODES):
        client = new_mode(gpu, view, size)
        shows(test, client, gpu.draw(seed, *size), f"{size}")
        shows(test, client, gpu.draw(10 + seed, *size), f"drawn in place at {size}")
    want = gpu.flip(20, *size)
    shows(test, client, want, "a flip")
    # QEMU's own code has no message.
    if not test.config["stock"]:
        test.equal(qemu.qmp("query-vfio-display")[0]["status"]["shows"], as_what, "what QEMU shows")
    gpu.off()
    wait_for("the picture goes when the plane is off", lambda: (seen := front_ends.picture(client)) is None or seen != want)
    client = new_mode(gpu, view, size)
    shows(test, client, gpu.draw(21, *size), "on again")
    said_nothing(test, qemu)


def region(start, test, front_end, opengl, _):
    """Draws twice."""
    qemu, gpu, view = front_end(test, partial(start, test), opengl)
    gpu.fill()
    client = view(gpu.width, gpu.height)
    for seed in (1, 2):
        shows(test, client, gpu.draw(seed), f"noise {seed}")
    said_nothing(test, qemu)


def said_nothing(test, qemu):
    """Returns messages about the device. Those of front ends about slow clients do not count."""
    test.equal([message for message in qemu.messages() if "vfio" in message], [], "what QEMU said")


# Front end, how it is started, the driver, and what is played.
DEVICES = {
    "mbochs": (dma_bufs, cases_mbochs.start, "mbochs_rw"),
    "mdpy": (region, partial(cases_mdpy.start, kind="vga"), "mdpy"),
    "udmabuf": (dma_bufs, partial(cases_vgpu.start, personality="mbochs"), None),
}


def register(device, name, front_end, *, opengl=False, as_what="surface", long=True):
    plays, start, driver = DEVICES[device]
    stock = {"surface": cases_mbochs.STOCK_NEEDS_GL, "scanout": "the last picture stays when the plane is off"}[as_what]

    def test_it(test):
        plays(start, test, front_end, opengl, as_what)

    test_it.__name__ = "_".join([device, front_end.__name__, *(["gl"] if opengl else [])])
    case(f"what a client of {name} sees{', with OpenGL' if opengl else ''}", driver=driver, long=long,
         stock=stock if plays is dma_bufs else None)(test_it)  # fmt: skip


register("mbochs", "VNC", front_ends.vnc)
register("mbochs", "VNC", front_ends.vnc, opengl=True, as_what="scanout", long=False)
register("mbochs", "SPICE", front_ends.spice)
register("mbochs", "SPICE", front_ends.spice, opengl=True, as_what="scanout", long=False)
register("mbochs", "D-Bus", front_ends.dbus, long=False)
register("mbochs", "D-Bus", front_ends.dbus, opengl=True, as_what="scanout")
register("mbochs", "GTK on X11", front_ends.gtk)
register("mbochs", "GTK on X11", front_ends.gtk, opengl=True)
register("mbochs", "GTK on Wayland", front_ends.wayland, opengl=True, as_what="scanout")
register("mdpy", "VNC", front_ends.vnc)
register("mdpy", "SPICE", front_ends.spice, long=False)
register("mdpy", "SPICE", front_ends.spice, opengl=True)
register("mdpy", "D-Bus", front_ends.dbus)
register("mdpy", "D-Bus", front_ends.dbus, opengl=True, long=False)
register("mdpy", "GTK on X11", front_ends.gtk)
register("mdpy", "GTK on X11", front_ends.gtk, opengl=True)
register("mdpy", "GTK on Wayland", front_ends.wayland, opengl=True)
for a_name, a_front_end in (("VNC", front_ends.vnc), ("SPICE", front_ends.spice), ("D-Bus", front_ends.dbus),
                            ("GTK on Wayland", front_ends.wayland)):  # fmt: skip
    register("udmabuf", a_name, a_front_end, opengl=True, as_what="scanout")
