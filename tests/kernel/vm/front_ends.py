"""QEMU's front ends, with the clients of the display tests (tests/qemu/lib)."""

import importlib
import os
import sys

from pictures import Picture
from root import make_writable

DISPLAY_TESTS = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../qemu"))
# Everything is emulated twice here, and slow.
PATIENCE = 6
# egl-headless imports what the CPU can read only if asked to.
IMPORTED = {"x-display-options": "read-back=on"}
# Small, since each check compares all of it.
SCREEN = 704, 544
# A compositor's mouse starts 100 pixels from both edges, outside a centred picture of 640x480.
SCREEN_OF_COMPOSITOR = 960, 832


def display_tests(test, name):
    """Imports one of their modules. The files that it leaves behind are results of this test."""
    settings = {"QEMU": test.config["qemu"], "VGPU": test.config["vgpu"], "KERNEL": test.config["kernel_vfio"], "QUIRKS": "",
                "VARIANT": "enabled", "OUTPUT": test.directory, "PATIENCE": PATIENCE}  # fmt: skip
    os.environ.update({f"VFIO_DPY_TEST_{key}": str(value) for key, value in settings.items()})
    if DISPLAY_TESTS not in sys.path:
        sys.path.append(DISPLAY_TESTS)
    importlib.import_module("lib.case").OUTPUT = test.directory
    return importlib.import_module(f"lib.{name}")


def picture(client):
    """Returns what a client shows; None if nothing."""
    image = client.picture()
    return image and Picture(*image.size, image.tobytes())


# Each takes a function that starts QEMU with a device, and returns QEMU, the device, and a function
# that finds the client showing a mode of some size, all white.


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
    """Shows GTK's window on a virtual screen."""
    # The X server creates its keymaps and its lock there.
    make_writable(test.modules, "/tmp")
    screen = test.servers.enter_context(server())
    display = display_tests(test, "scenes").gtk("on" if opengl else "off")
    qemu, gpu = start(display=display, environment=screen.environment)
    return qemu, gpu, screen.window


def gtk(test, start, opengl):
    return window(test, start, opengl, lambda: display_tests(test, "x11").X11(*SCREEN))


def wayland(test, start, opengl):
    return window(test, start, opengl, lambda: display_tests(test, "wayland").Wayland(size=SCREEN_OF_COMPOSITOR))
