"""The scenes that every front end shows, and the rows of docs/front-ends.md."""

import json
import os

from matrix import SCENES

from .case import Failure, output_file, say, until
from .pictures import count, load, same_as_screen

_WHITE = 255, 255, 255
_MODES = {"mbochs": "dma-buf", "gvt": "dma-buf", "nvidia": "region", "mdpy": "region"}
# The cursor's upper left corner, its hotspot, and its colour.
_CORNER, _HOTSPOT, _COLOUR = (100, 50), (3, 4), (0x20, 0x80, 0xFF, 0xFF)
_SIZE = 64, 64
_OFF = ("QEMU's devices and front ends do not agree on whether a pointer's place is that of its hotspot, or that of its upper left "
        "corner. Clients that draw the mouse where it is (with a tablet) are not concerned.")


def gtk(gl):
    """Returns the argument of -display for a GTK window without menus and tabs."""
    return f"gtk,gl={gl},show-menubar=off,show-tabs=off,zoom-to-fit=off"


def sdl(gl):
    """Returns the argument of -display for SDL's windows."""
    return f"sdl,gl={gl}"


class Console:
    """Screendumps, as a client."""

    def __init__(self, qemu, device=None):
        self._qemu, self._device = qemu, device

    def picture(self):
        """Returns what is on the console."""
        return load(self._qemu.screendump(self._device))


def play(front_end, vgpu, qemu, view, cursor, tolerance=0):
    """Plays all scenes, prints the results, and writes a row for the table.

    `view()` returns the client that shows a mode which has just been set, in which all is white. `cursor` is "picture" where
    the client sees it as a part of the picture, "pointer" where it gets one to draw (`client.pointer()`), "mouse" where the
    user's mouse takes the shape that the guest gives it, in the picture, or why it gets none.
    """
    mode = _MODES[vgpu.personality]
    how = "yes" if tolerance == 0 else f"yes, ±{tolerance}"
    # The cell of the table for each scene, and a note on it.
    cells = {scene: (how, None) for scene in SCENES}
    say(f"{front_end}, {mode}:")

    def same(scene, with_cursor=False):
        same_as_screen(f"    {scene}", vgpu, client, cursor=with_cursor, tolerance=tolerance)

    def set_mode(scene, size, pattern):
        vgpu.show(f"{size} buffers=3", "solid:ffffff")
        found = view()
        for buffer in range(3):
            vgpu.ask(f"pattern {pattern} seed={buffer} buffer={buffer}")
        same_as_screen(f"    {scene}", vgpu, found, tolerance=tolerance)
        return found

    client = set_mode("first picture", "640x480", "noise")
    vgpu.ask("rect 10,20,30x40 ff8000")
    same("drawn in place")
    for _ in range(3):
        vgpu.ask("flip")
        same("flip")
    if vgpu.personality == "gvt":
        cells["cursor"] = _show_cursor(vgpu, client, cursor, same, how)
    else:
        cells["cursor"] = "the device has none", None
    for size in "800x600", "320x240", "640x480":
        client = set_mode("mode set", size, "gradient")
    vgpu.ask("rect 100,50,30x20 ffffff")
    same("drawn in place")
    vgpu.ask("plane off")
    until("the picture goes", lambda: (shown := client.picture()) and shown.getpixel((110, 60)) != _WHITE)
    say("    plane off: the picture has gone")
    cells["plane off"] = "a message", None
    vgpu.ask("plane on")
    same("plane on")
    _leave_row(front_end, mode, qemu.status()["shows"], cells)


def play_pair(vgpu, qemu, *pair):
    """Plays all scenes to each of two front ends beside the other.

    Each is a name, a view, and how it shows the cursor.
    """
    for (name, view, cursor), (beside, _, _) in (pair, pair[::-1]):
        play(f"{name}, beside {beside}", vgpu, qemu, view, cursor)
    qemu.say_messages()


def _show_cursor(vgpu, client, cursor, same, how):
    """Shows, moves and hides a cursor. Returns its cell of the table."""
    if cursor not in ("picture", "pointer", "mouse"):
        return cursor, None
    vgpu.ask("cursor {}x{} {},{} hot={},{} color=ff2080ff".format(*_SIZE, *_CORNER, *_HOTSPOT))
    if cursor == "picture":
        same("cursor", with_cursor=True)
        vgpu.ask("cursor move 300,200")
        same("cursor, moved", with_cursor=True)
        vgpu.ask("cursor off")
        same("cursor, off", with_cursor=True)
        return how, None

    if cursor == "mouse":
        return _take_shape(vgpu, client, same)

    if hasattr(client, "enter"):
        client.enter()

    def there():
        found = client.pointer()
        return found if found and found["image"].getcolors() == [(_SIZE[0] * _SIZE[1], _COLOUR)] else None

    pointer = until("a pointer in one colour", there)
    if pointer["image"].size != _SIZE or pointer["hotspot"] not in (_HOTSPOT, None):
        raise Failure(f"the pointer has the size {pointer['image'].size} and the hotspot {pointer['hotspot']}")
    say(f"    cursor: a pointer of {pointer['image'].size}, hotspot {pointer['hotspot']}")
    place = _follow(vgpu, client) if "place" in pointer else None
    vgpu.ask("cursor off")
    until("no pointer", lambda: client.pointer() is None)
    say("    cursor, off: no pointer")
    if hasattr(client, "leave"):
        client.leave()
    return ("a pointer", None) if not place else (f"a pointer, {place}", _OFF)


def _take_shape(vgpu, client, same):
    """Checks a cursor that the compositor draws as the mouse, over the picture."""
    client.enter()
    takes_shape("    cursor", client, _COLOUR[:3])
    vgpu.ask("cursor off")
    same("cursor, off")
    client.leave()
    return "the mouse's shape", None


def takes_shape(what, client, colour):
    """Waits until the mouse, drawn over the picture, has the shape of a cursor of this colour."""
    pixels = _SIZE[0] * _SIZE[1]
    until("the mouse takes the cursor's shape", lambda: count(client.picture(), tuple(colour)) == pixels)
    say(f"{what}: the mouse has a shape of {pixels} pixels")


def _follow(vgpu, client):
    """Moves the cursor. Returns how far off the client's pointer is; None if it is right."""
    target = 300, 200
    points_to = target[0] + _HOTSPOT[0], target[1] + _HOTSPOT[1]

    def near():
        found = client.pointer()
        place = found and found["place"]
        return place if place and max(abs(place[0] - target[0]), abs(place[1] - target[1])) < 20 else None

    vgpu.ask("cursor move {},{}".format(*target))
    place = until("the pointer moves", near)
    say(f"    cursor, moved: at {place}, and points to {points_to}")
    return None if place == points_to else "off by {},{}".format(place[0] - points_to[0], place[1] - points_to[1])


def _leave_row(front_end, mode, shows, cells):
    """Writes a row for the table."""
    path = output_file("matrix.json")
    found = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    found.append({"front end": front_end, "mode": mode, "shows": shows, "cells": cells})
    with open(path, "w", encoding="utf-8") as file:
        json.dump(found, file)
