"""QEMU's front ends, and what a client of each is shown. The clients are those of the display tests (tests/qemu/lib)."""

import importlib
import os
import sys

from pictures import Picture
from root import make_writable

DISPLAY_TESTS = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../qemu"))
# Everything is emulated twice here.
PATIENCE = 6
# What egl-headless can read itself, it does not import, unless asked to.
IMPORTED = {"x-display-options": "read-back=on"}
# Each look takes all of it.
SCREEN = 704, 544
# A compositor's mouse is 100 pixels from both edges, until it is moved; there a picture of 640x480 in the middle does not reach.
SCREEN_OF_COMPOSITOR = 960, 832


def display_tests(test, name):
    """A module of theirs. What it leaves behind is a result of this test."""
    settings = {"QEMU": test.config["qemu"], "VGPU": test.config["vgpu"], "KERNEL": test.config["kernel_vfio"], "QUIRKS": "",
                "VARIANT": "enabled", "OUTPUT": test.directory, "PATIENCE": PATIENCE}  # fmt: skip
    os.environ.update({f"VFIO_DPY_TEST_{key}": str(value) for key, value in settings.items()})
    if DISPLAY_TESTS not in sys.path:
        sys.path.append(DISPLAY_TESTS)
    importlib.import_module("lib.case").OUTPUT = test.directory
    return importlib.import_module(f"lib.{name}")


def picture(client):
    """What a client shows; None if nothing."""
    image = client.picture()
    return image and Picture(*image.size, image.tobytes())


# Each takes what starts QEMU with a device, and returns its two results, QEMU and the device, and what finds the client that is
# shown a mode of some size, in which all is white.


def vnc(test, start, opengl):
    path = "/run/tmp/vnc"
    options = {"display": "egl-headless", **IMPORTED} if opengl else {"display": "none"}
    qemu, gpu = start(extra=["-vnc", f"unix:{path}"], **options)
    client = test.clients.enter_context(display_tests(test, "vnc").Vnc(path))
    return qemu, gpu, lambda *_: client


def spice(test, start, opengl):
    module = display_tests(test, "spice")
    qemu, gpu = start(extra=module.arguments(opengl))
    client = test.clients.enter_context(module.Spice())
    return qemu, gpu, lambda *_: client


def dbus(test, start, opengl):
    qemu, gpu = start(display=f"dbus,p2p=yes,gl={'on' if opengl else 'off'}")
    client = test.clients.enter_context(display_tests(test, "dbus").DBusScreen(qemu))
    return qemu, gpu, lambda *_: client


def window(test, start, opengl, server):
    """GTK's, on a screen that nobody sees."""
    # The X server makes its keymaps and its lock there.
    make_writable(test.modules, "/tmp")
    screen = test.servers.enter_context(server())
    display = display_tests(test, "scenes").gtk("on" if opengl else "off")
    qemu, gpu = start(display=display, environment=screen.environment)
    return qemu, gpu, screen.window


def gtk(test, start, opengl):
    return window(test, start, opengl, lambda: display_tests(test, "x11").X11(*SCREEN))


def wayland(test, start, opengl):
    return window(test, start, opengl, lambda: display_tests(test, "wayland").Wayland(size=SCREEN_OF_COMPOSITOR))
