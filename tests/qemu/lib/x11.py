"""Xvfb, an X server without a screen, and what windows on it show."""

import ctypes
import os
from contextlib import contextmanager

from PIL import Image, ImageGrab

from . import processes
from .case import Failure, output_file, until
from .pictures import pointer

WIDTH, HEIGHT = 1280, 1024
# Maximum height of a menu bar in pixels, with a scale of 2.
_MENU = 64
# A smaller white area is no picture.
_LEAST = 100


class _CursorImage(ctypes.Structure):
    """XFixesCursorImage."""

    _fields_ = [("x", ctypes.c_short), ("y", ctypes.c_short), ("width", ctypes.c_ushort), ("height", ctypes.c_ushort),
                ("hot_x", ctypes.c_ushort), ("hot_y", ctypes.c_ushort), ("serial", ctypes.c_ulong),
                ("pixels", ctypes.POINTER(ctypes.c_ulong)), ("atom", ctypes.c_ulong), ("name", ctypes.c_char_p)]


class _ClientMessage(ctypes.Structure):
    """XClientMessageEvent, with 32-bit data, in the room of an XEvent."""

    _fields_ = [("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("send_event", ctypes.c_int), ("display", ctypes.c_void_p),
                ("window", ctypes.c_ulong), ("message_type", ctypes.c_ulong), ("format", ctypes.c_int),
                ("data", ctypes.c_long * 5), ("room", ctypes.c_long * 12)]


_CLIENT_MESSAGE, _REVERT_TO_POINTER_ROOT = 33, 1
_GRAB_MODE_ASYNC, _ALREADY_GRABBED = 1, 1

# Xlib's own handler ends the process, and a window may disappear while its size is queried.
_KEEP_ON = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: 0)


class X11:
    """Xvfb without a window manager, for a `with` block."""

    # Whether the pointer is part of the picture.
    draws_pointer = False

    def __init__(self, width=WIDTH, height=HEIGHT, arguments=()):
        ready, write_end = os.pipe()
        with open(output_file("xvfb.log"), "ab") as log:
            try:
                self.process = processes.start(
                    ["Xvfb", "-displayfd", str(write_end), "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp", "-noreset", "-r",
                     *arguments],
                    stdout=log, stderr=log, pass_fds=[write_end])
            except FileNotFoundError:
                raise SystemExit("Xvfb is missing: the tests need Debian's xvfb") from None
        os.close(write_end)
        # The server writes its number and the end of the line separately, and dies if either is not
        # read.
        with open(ready, encoding="ascii") as line:
            number = line.readline().strip()
        if not number:
            raise Failure(f"Xvfb {processes.exit_text(self.process.wait(30))} (see xvfb.log)")
        self.display = f":{number}"
        self._xlib, self._xfixes, self._xtest = map(ctypes.CDLL, ("libX11.so.6", "libXfixes.so.3", "libXtst.so.6"))
        for function, kinds, result in (
                (self._xlib.XOpenDisplay, [ctypes.c_char_p], ctypes.c_void_p),
                (self._xlib.XCloseDisplay, [ctypes.c_void_p], ctypes.c_int),
                (self._xlib.XDefaultRootWindow, [ctypes.c_void_p], ctypes.c_ulong),
                (self._xlib.XQueryTree, [ctypes.c_void_p, ctypes.c_ulong, *[ctypes.c_void_p] * 4], ctypes.c_int),
                (self._xlib.XGetGeometry, [ctypes.c_void_p, ctypes.c_ulong, *[ctypes.c_void_p] * 7], ctypes.c_int),
                (self._xlib.XResizeWindow, [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_uint, ctypes.c_uint], ctypes.c_int),
                (self._xlib.XRaiseWindow, [ctypes.c_void_p, ctypes.c_ulong], ctypes.c_int),
                (self._xlib.XWarpPointer, [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong, *[ctypes.c_int] * 6], ctypes.c_int),
                (self._xlib.XSetInputFocus, [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_ulong], ctypes.c_int),
                (self._xlib.XSync, [ctypes.c_void_p, ctypes.c_int], ctypes.c_int),
                (self._xlib.XGrabPointer, [ctypes.c_void_p, ctypes.c_ulong, *[ctypes.c_int] * 4, *[ctypes.c_ulong] * 3], ctypes.c_int),
                (self._xlib.XUngrabPointer, [ctypes.c_void_p, ctypes.c_ulong], ctypes.c_int),
                (self._xlib.XFree, [ctypes.c_void_p], ctypes.c_int),
                (self._xlib.XStringToKeysym, [ctypes.c_char_p], ctypes.c_ulong),
                (self._xlib.XKeysymToKeycode, [ctypes.c_void_p, ctypes.c_ulong], ctypes.c_ubyte),
                (self._xlib.XInternAtom, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int], ctypes.c_ulong),
                (self._xlib.XSendEvent, [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long, ctypes.c_void_p], ctypes.c_int),
                (self._xlib.XQueryPointer, [ctypes.c_void_p, ctypes.c_ulong, *[ctypes.c_void_p] * 7], ctypes.c_int),
                (self._xtest.XTestFakeKeyEvent, [ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_ulong], ctypes.c_int),
                (self._xtest.XTestFakeButtonEvent, [ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_ulong], ctypes.c_int),
                (self._xfixes.XFixesGetCursorImage, [ctypes.c_void_p], ctypes.POINTER(_CursorImage))):
            function.argtypes, function.restype = kinds, result
        self._xlib.XSetErrorHandler(_KEEP_ON)
        self._connection = self._xlib.XOpenDisplay(self.display.encode())
        if not self._connection:
            raise Failure(f"Xvfb refuses us as a client of {self.display} (see xvfb.log)")
        # No window is large enough to contain this point.
        self.corner = width - 1, height - 1
        self.move_pointer(*self.corner)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._xlib.XCloseDisplay(self._connection)
        self.process.terminate()
        self.process.wait(30)

    @property
    def environment(self):
        """Returns the environment for programs that open windows here."""
        return {"DISPLAY": self.display}

    def picture(self):
        """Returns the whole screen."""
        return ImageGrab.grab(xdisplay=self.display).convert("RGB")

    def move_pointer(self, x, y):
        """Moves the mouse here."""
        self._xlib.XWarpPointer(self._connection, 0, self._xlib.XDefaultRootWindow(self._connection), 0, 0, 0, 0, x, y)
        self._xlib.XSync(self._connection, 0)

    def move_aside(self):
        """Moves the mouse out of the compared picture, but not so far that keys go elsewhere."""
        # The pointer is not part of the picture.

    def pointer_place(self):
        """Returns the mouse's position."""
        place = [ctypes.c_int() for _ in range(4)]
        root, child, state = ctypes.c_ulong(), ctypes.c_ulong(), ctypes.c_uint()
        self._xlib.XQueryPointer(self._connection, self._xlib.XDefaultRootWindow(self._connection),
                                 *map(ctypes.byref, (root, child, *place, state)))
        return place[0].value, place[1].value

    def is_grabbed(self):
        """Returns whether a program has the mouse for itself: nobody else can have it then."""
        root = self._xlib.XDefaultRootWindow(self._connection)
        status = self._xlib.XGrabPointer(self._connection, root, 0, 0, _GRAB_MODE_ASYNC, _GRAB_MODE_ASYNC, 0, 0, 0)
        self._xlib.XUngrabPointer(self._connection, 0)
        self._xlib.XSync(self._connection, 0)
        return status == _ALREADY_GRABBED

    def press(self, keys):
        """Presses keys, e.g. "Control_L+Alt_L+f" or "Return", in the window under the mouse."""
        with self.held(keys):
            pass

    @contextmanager
    def held(self, keys):
        """Holds keys down, without repetition, for a `with` block."""
        codes = [self._xlib.XKeysymToKeycode(self._connection, self._xlib.XStringToKeysym(key.encode())) for key in keys.split("+")]
        self._send_keys(1, codes)
        try:
            yield
        finally:
            self._send_keys(0, reversed(codes))

    def _send_keys(self, down, codes):
        for code in codes:
            self._xtest.XTestFakeKeyEvent(self._connection, code, down, 0)
        self._xlib.XSync(self._connection, 0)

    def focus(self, window):
        """Gives this window the keyboard's focus, wherever the mouse is."""
        self._xlib.XSetInputFocus(self._connection, window, _REVERT_TO_POINTER_ROOT, 0)
        self._xlib.XSync(self._connection, 0)

    def click(self, x, y):
        """Clicks here."""
        self.move_pointer(x, y)
        for down in 1, 0:
            self._xtest.XTestFakeButtonEvent(self._connection, 1, down, 0)
        self._xlib.XSync(self._connection, 0)

    def close(self, window):
        """Closes a window, as a user does."""
        def atom(name):
            return self._xlib.XInternAtom(self._connection, name, 0)

        event = _ClientMessage(type=_CLIENT_MESSAGE, window=window, message_type=atom(b"WM_PROTOCOLS"), format=32)
        event.data[0] = atom(b"WM_DELETE_WINDOW")
        self._xlib.XSendEvent(self._connection, window, 0, 0, ctypes.byref(event))
        self._xlib.XSync(self._connection, 0)

    def resize(self, width, height):
        """Resizes all windows, as a user does."""
        for window, _ in self.windows():
            self._xlib.XResizeWindow(self._connection, window, width, height)
        self._xlib.XSync(self._connection, 0)

    def pointer(self):
        """Returns the pointer, which the screen's picture lacks; None if it is invisible."""
        found = self._xfixes.XFixesGetCursorImage(self._connection)
        if not found:
            raise Failure("X11: the pointer cannot be had")
        image = found.contents
        size = image.width, image.height
        pixels = b"".join((image.pixels[i] & 0xFFFFFFFF).to_bytes(4, "little") for i in range(size[0] * size[1]))
        hotspot = image.hot_x, image.hot_y
        self._xlib.XFree(found)
        shown = pointer(size, pixels, "BGRA")
        if not shown:
            return None
        # Invisible edges are cropped.
        box = shown["image"].getchannel("A").getbbox()
        return {"image": shown["image"].crop(box), "hotspot": (hotspot[0] - box[0], hotspot[1] - box[1])}

    def viewer(self, vgpu):
        """Returns a function that finds the window showing a vGPU's mode, which is all white."""
        def view():
            state = vgpu.state()
            return self.window(state["width"], state["height"])

        return view

    def window(self, width, height, scale=1):
        """Waits for a window that shows a white picture of this size at this scale, as a client."""
        width, height = width * scale, height * scale

        def found():
            # While a window does not have its size yet, the picture is elsewhere.
            box = self._white() if self._fits(width, height) else None
            return box and (box[2] - box[0], box[3] - box[1]) == (width, height) and box

        try:
            return Window(self, until(f"a white picture of {width}x{height}", found), scale)
        except Failure as failure:
            self.picture().save(output_file("screen.png"))
            raise Failure(f"{failure} (see screen.png)") from None

    def any_window(self):
        """Returns a window that shows a white picture of any size; None if there is none."""
        box = self._white()
        return Window(self, box) if box and min(box[2] - box[0], box[3] - box[1]) > _LEAST else None

    def _fits(self, width, height):
        """Returns whether there is a window for a picture of this size."""
        return any(size[0] == width and height <= size[1] <= height + _MENU for _, size in self.windows())

    def windows(self):
        """Returns all windows, and their sizes."""
        return [(window, size) for window, size, _ in self._geometries()]

    def front(self, size):
        """Brings the window of this size to the front, as a user does. Returns its box; None if there is none."""
        for window, found, (x, y) in self._geometries():
            if found == size:
                self._xlib.XRaiseWindow(self._connection, window)
                self._xlib.XSync(self._connection, 0)
                return x, y, x + size[0], y + size[1]
        return None

    def _geometries(self):
        """Returns all windows, their sizes and their places."""
        root, parent, count = ctypes.c_ulong(), ctypes.c_ulong(), ctypes.c_uint()
        windows = ctypes.POINTER(ctypes.c_ulong)()
        self._xlib.XQueryTree(self._connection, self._xlib.XDefaultRootWindow(self._connection),
                              *map(ctypes.byref, (root, parent, windows, count)))
        x, y = ctypes.c_int(), ctypes.c_int()
        found = []
        for number in range(count.value):
            width, height, border, depth = (ctypes.c_uint() for _ in range(4))
            self._xlib.XGetGeometry(self._connection, windows[number],
                                    *map(ctypes.byref, (root, x, y, width, height, border, depth)))
            found.append((windows[number], (width.value, height.value), (x.value, y.value)))
        if windows:
            self._xlib.XFree(windows)
        return found

    def _white(self):
        white = self.picture().convert("L").point(lambda value: 255 if value == 255 else 0)
        # All-white blocks are not part of a mouse pointer.
        blocks = white.reduce(8).point(lambda value: 255 if value == 255 else 0).getbbox()
        if not blocks:
            return None
        left, top = (max(0, 8 * edge - 8) for edge in blocks[:2])
        box = white.crop((left, top, 8 * blocks[2] + 8, 8 * blocks[3] + 8)).getbbox()
        return box[0] + left, box[1] + top, box[2] + left, box[3] + top


class Front:
    """A window of this size without a frame, which is in front of others when it is looked at."""

    def __init__(self, server, size):
        self._server, self._size = server, size

    def picture(self):
        """Returns what it shows; None if there is no such window."""
        box = self._server.front(self._size)
        return self._server.picture().crop(box) if box else None


class Window:
    """A part of the screen in which a picture is shown."""

    def __init__(self, server, box, scale=1):
        self._server, self.box, self._scale = server, box, scale
        self.corner = box[:2]
        self.size = box[2] - box[0], box[3] - box[1]

    def picture(self):
        """Returns this part of the screen; None if the pixels of a scaled one differ."""
        shown = self._server.picture().crop(self.box)
        if self._scale == 1:
            return shown
        picture = shown.resize((shown.width // self._scale, shown.height // self._scale), Image.Resampling.NEAREST)
        return picture if picture.resize(shown.size, Image.Resampling.NEAREST).tobytes() == shown.tobytes() else None

    def enter(self):
        """Moves the mouse into the window."""
        self._server.move_pointer((self.box[0] + self.box[2]) // 2, (self.box[1] + self.box[3]) // 2)

    def leave(self):
        """Moves the mouse out of it."""
        self._server.move_pointer(*self._server.corner)

    def pointer(self):
        """Returns the pointer, wherever it is; None if it is invisible."""
        return self._server.pointer()
