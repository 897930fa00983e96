"""An X server without a screen, and what windows on it show."""

import ctypes
import os

from PIL import ImageGrab

from . import processes
from .case import Failure, output_file, until
from .pictures import pointer

WIDTH, HEIGHT = 1280, 1024
# GTK windows without a menu bar keep its room, in pixels.
_MENU = 32


class _CursorImage(ctypes.Structure):
    """XFixesCursorImage."""

    _fields_ = [("x", ctypes.c_short), ("y", ctypes.c_short), ("width", ctypes.c_ushort), ("height", ctypes.c_ushort),
                ("hot_x", ctypes.c_ushort), ("hot_y", ctypes.c_ushort), ("serial", ctypes.c_ulong),
                ("pixels", ctypes.POINTER(ctypes.c_ulong)), ("atom", ctypes.c_ulong), ("name", ctypes.c_char_p)]


# Xlib's own ends the process, and a window may go while we ask for its size.
_KEEP_ON = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: 0)


class X11:
    """Xvfb, from the start to the end of a `with` block. There is no window manager."""

    def __init__(self, width=WIDTH, height=HEIGHT, arguments=()):
        ready, write_end = os.pipe()
        with open(output_file("xvfb.log"), "ab") as log:
            try:
                self.process = processes.start(
                    ["Xvfb", "-displayfd", str(write_end), "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp", "-noreset",
                     *arguments],
                    stdout=log, stderr=log, pass_fds=[write_end])
            except FileNotFoundError:
                raise SystemExit("Xvfb is missing: the tests need Debian's xvfb") from None
        os.close(write_end)
        # The server writes its number and the end of the line one after the other, and dies if nobody reads both.
        with open(ready, encoding="ascii") as line:
            number = line.readline().strip()
        if not number:
            raise Failure(f"Xvfb {processes.exit_text(self.process.wait(30))} (see xvfb.log)")
        self.display = f":{number}"
        self._xlib, self._xfixes = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libXfixes.so.3")
        for function, kinds, result in (
                (self._xlib.XOpenDisplay, [ctypes.c_char_p], ctypes.c_void_p),
                (self._xlib.XCloseDisplay, [ctypes.c_void_p], ctypes.c_int),
                (self._xlib.XDefaultRootWindow, [ctypes.c_void_p], ctypes.c_ulong),
                (self._xlib.XQueryTree, [ctypes.c_void_p, ctypes.c_ulong, *[ctypes.c_void_p] * 4], ctypes.c_int),
                (self._xlib.XGetGeometry, [ctypes.c_void_p, ctypes.c_ulong, *[ctypes.c_void_p] * 7], ctypes.c_int),
                (self._xlib.XResizeWindow, [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_uint, ctypes.c_uint], ctypes.c_int),
                (self._xlib.XWarpPointer, [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong, *[ctypes.c_int] * 6], ctypes.c_int),
                (self._xlib.XSync, [ctypes.c_void_p, ctypes.c_int], ctypes.c_int),
                (self._xlib.XFree, [ctypes.c_void_p], ctypes.c_int),
                (self._xfixes.XFixesGetCursorImage, [ctypes.c_void_p], ctypes.POINTER(_CursorImage))):
            function.argtypes, function.restype = kinds, result
        self._xlib.XSetErrorHandler(_KEEP_ON)
        self._connection = self._xlib.XOpenDisplay(self.display.encode())
        if not self._connection:
            raise Failure(f"Xvfb refuses us as a client of {self.display} (see xvfb.log)")
        # No window is so large that the pointer would be in it.
        self.move_pointer(width - 1, height - 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._xlib.XCloseDisplay(self._connection)
        self.process.terminate()
        self.process.wait(30)

    @property
    def environment(self):
        """What a program needs to open windows here."""
        return {"DISPLAY": self.display}

    def picture(self):
        """The whole screen."""
        return ImageGrab.grab(xdisplay=self.display).convert("RGB")

    def move_pointer(self, x, y):
        """The user moves the mouse here."""
        self._xlib.XWarpPointer(self._connection, 0, self._xlib.XDefaultRootWindow(self._connection), 0, 0, 0, 0, x, y)
        self._xlib.XSync(self._connection, 0)

    def resize(self, width, height):
        """The user drags all windows to this size."""
        for window, _ in self._windows():
            self._xlib.XResizeWindow(self._connection, window, width, height)
        self._xlib.XSync(self._connection, 0)

    def pointer(self):
        """The pointer; None if nothing of it is visible. The screen's picture does not show it."""
        found = self._xfixes.XFixesGetCursorImage(self._connection)
        if not found:
            raise Failure("X11: the pointer cannot be had")
        image = found.contents
        size = image.width, image.height
        pixels = b"".join((image.pixels[i] & 0xFFFFFFFF).to_bytes(4, "little") for i in range(size[0] * size[1]))
        hotspot = image.hot_x, image.hot_y
        self._xlib.XFree(found)
        return pointer(size, pixels, "BGRA", hotspot=hotspot)

    def viewer(self, vgpu):
        """What finds the window that shows a vGPU's mode, which is white all over."""
        def view():
            state = vgpu.state()
            return self.window(state["width"], state["height"])

        return view

    def window(self, width, height):
        """A client of the display, as tests compare it: a window that now shows a white picture of this size."""
        # In a window that does not have its size yet the picture is elsewhere.
        box = until(f"a white picture of {width}x{height}", lambda: self._fits(width, height) and self._white(width, height))
        return Window(self, box)

    def _fits(self, width, height):
        """Whether there is a window for a picture of this size."""
        return any(size[0] == width and height <= size[1] <= height + _MENU for _, size in self._windows())

    def _windows(self):
        """The windows and their sizes."""
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
            found.append((windows[number], (width.value, height.value)))
        if windows:
            self._xlib.XFree(windows)
        return found

    def _white(self, width, height):
        white = self.picture().convert("L").point(lambda value: 255 if value == 255 else 0)
        # Blocks that are white all over are no part of a mouse pointer.
        blocks = white.reduce(8).point(lambda value: 255 if value == 255 else 0).getbbox()
        if not blocks:
            return None
        left, top = (max(0, 8 * edge - 8) for edge in blocks[:2])
        box = white.crop((left, top, 8 * blocks[2] + 8, 8 * blocks[3] + 8)).getbbox()
        box = box[0] + left, box[1] + top, box[2] + left, box[3] + top
        return box if (box[2] - box[0], box[3] - box[1]) == (width, height) else None


class Window:
    """A part of the screen in which a picture is shown."""

    def __init__(self, server, box):
        self._server, self._box = server, box
        self.corner = box[:2]

    def picture(self):
        """What is on this part of the screen."""
        return self._server.picture().crop(self._box)

    def enter(self):
        """The user moves the mouse into the window."""
        self._server.move_pointer((self._box[0] + self._box[2]) // 2, (self._box[1] + self._box[3]) // 2)

    def leave(self):
        """The user moves the mouse out of it."""
        self._server.move_pointer(WIDTH - 1, HEIGHT - 1)

    def pointer(self):
        """The pointer, wherever it is; None if nothing of it is visible."""
        return self._server.pointer()
