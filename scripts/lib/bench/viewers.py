"""Clients of the front ends that take every picture, and note when it came."""

import ctypes
import mmap
import os
import select
import struct
import threading
import time

from lib import Failure, Vnc
from lib.dbus import DBusScreen
from lib.spice import Spice

# Where a marked flip has its number, and as much memory as holds that pixel in any mode.
_MARK_AT = 0, 0
_PAGE = mmap.PAGESIZE
# What comes within so many ns of one another is one picture: front ends hand it out in parts.
_PARTS = 2_000_000


class Arrivals:
    """The pictures that came, and when."""

    def __init__(self):
        self.pictures = 0
        self.bytes = 0
        self._last = 0
        # (nanoseconds of CLOCK_MONOTONIC, number of the marked flip) of those pictures that have a
        # mark.
        self.marks = []

    def picture(self, size, mark):
        """Notes a picture, or a part. `mark`: the pixel in its corner, blue first, if it is included."""
        now = time.monotonic_ns()
        self.pictures += now - self._last > _PARTS
        self._last = now
        self.bytes += size
        if mark is not None:
            self.marks.append((now, int.from_bytes(mark[:3], "little")))


class VncViewer(Vnc):
    """A VNC client that always requests the next update, in raw pixels, and draws nothing."""

    def __init__(self, path):
        self.arrivals = Arrivals()
        self._scratch = bytearray(1 << 20)
        self._update_bytes, self._mark = 0, None
        super().__init__(path)

    def _pixels(self, x, y, width, height):
        size = width * height * 4
        if (x, y) == _MARK_AT and size:
            self._mark = self._receive(4)
            size -= 4
        scratch = memoryview(self._scratch)
        left = size
        while left:
            count = self._socket.recv_into(scratch[:left])
            if not count:
                raise ConnectionError("QEMU closed the VNC connection")
            left -= count
        self._update_bytes += size

    def _update(self):
        self._update_bytes, self._mark = 0, None
        super()._update()
        if self._update_bytes:
            self.arrivals.picture(self._update_bytes, self._mark)


class DBusViewer(DBusScreen):
    """A D-Bus client that takes pixels and dma-bufs, and draws nothing."""

    def __init__(self, qemu):
        self.arrivals = Arrivals()
        self._memory = None
        super().__init__(qemu)

    def _called(self, _connection, _sender, _path, _interface, method, parameters, invocation):
        if method == "ScanoutDMABUF":
            (fd,) = invocation.get_message().get_unix_fd_list().steal_fds()
            self._forget()
            try:
                self._memory = mmap.mmap(fd, _PAGE, prot=mmap.PROT_READ)
            finally:
                os.close(fd)
            self.arrivals.picture(0, self._memory[:4])
        elif method == "UpdateDMABUF":
            self.arrivals.picture(0, self._memory[:4] if self._memory else None)
        elif method in ("Scanout", "Update"):
            self._forget()
            pixels = parameters.get_child_value(parameters.n_children() - 1).get_data_as_bytes().get_data()
            place = _MARK_AT if method == "Scanout" else tuple(parameters.get_child_value(i).get_int32() for i in (0, 1))
            self.arrivals.picture(len(pixels), pixels[:4] if place == _MARK_AT else None)
        elif method == "Disable":
            self._forget()
        elif method in ("CursorDefine", "MouseSet"):
            super()._called(_connection, _sender, _path, _interface, method, parameters, invocation)
            return
        invocation.return_value(None)

    def _forget(self):
        if self._memory:
            self._memory.close()
            self._memory = None

    def close(self):
        """Disconnects."""
        super().close()
        self._forget()


class SpiceViewer(Spice):
    """A SPICE client: spice-gtk, which decodes into a surface."""

    def __init__(self):
        self.arrivals = Arrivals()
        super().__init__()

    def _invalidated(self, channel, x, y, width, height):
        super()._invalidated(channel, x, y, width, height)
        mark = ctypes.string_at(self._surface[0], 4) if self._surface and (x, y) == _MARK_AT else None
        self.arrivals.picture(width * height * 4, mark)

    def _drawn(self, channel, *place):
        scanout = channel.get_gl_scanout()
        mark = None
        if scanout and scanout.fd >= 0:
            with mmap.mmap(scanout.fd, _PAGE, prot=mmap.PROT_READ) as memory:
                mark = memory[:4]
        self.arrivals.picture(0, mark)
        super()._drawn(channel, *place)


class _Damage(ctypes.Structure):
    """XDamageNotifyEvent."""

    _fields_ = [("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("sent", ctypes.c_int), ("display", ctypes.c_void_p),
                ("drawable", ctypes.c_ulong), ("damage", ctypes.c_ulong), ("level", ctypes.c_int), ("more", ctypes.c_int),
                ("time", ctypes.c_ulong), *[(name, ctypes.c_short) for name in ("x", "y")],
                *[(name, ctypes.c_ushort) for name in ("width", "height")]]


class X11Viewer:
    """The X server's screen, read from its memory when it reports a drawing."""

    # XEvent, and XDamageReportRawRectangles.
    _EVENT_SIZE, _RECTANGLES = 24 * ctypes.sizeof(ctypes.c_long), 0

    @staticmethod
    def arguments(directory):
        """Returns the X server's arguments that make its memory a file."""
        return "-fbdir", directory

    def __init__(self, server, directory, corner):
        self.arrivals = Arrivals()
        self._corner = corner
        with open(os.path.join(directory, "Xvfb_screen0"), "rb") as file:
            self._memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        # As XWDFile.h has it: a header, colours of 12 bytes, rows.
        header = struct.unpack_from(">20I", self._memory)
        self._pixel = header[0] + 12 * header[19] + corner[1] * header[12] + corner[0] * header[11] // 8
        self._xlib, self._xdamage = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libXdamage.so.1")
        self._xlib.XOpenDisplay.restype = ctypes.c_void_p
        self._xlib.XDefaultRootWindow.restype = self._xdamage.XDamageCreate.restype = ctypes.c_ulong
        # No other thread uses this connection.
        self._connection = ctypes.c_void_p(self._xlib.XOpenDisplay(server.display.encode()))
        if not self._connection:
            raise Failure(f"Xvfb refuses us as a client of {server.display} (see xvfb.log)")
        first, errors = ctypes.c_int(), ctypes.c_int()
        if not self._xdamage.XDamageQueryExtension(self._connection, ctypes.byref(first), ctypes.byref(errors)):
            raise Failure("Xvfb does not say when something is drawn")
        root = ctypes.c_ulong(self._xlib.XDefaultRootWindow(self._connection))
        self._xdamage.XDamageCreate(self._connection, root, self._RECTANGLES)
        self._xlib.XFlush(self._connection)
        self._first, self._ended = first.value, False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        event = ctypes.create_string_buffer(self._EVENT_SIZE)
        while not self._ended:
            while self._xlib.XPending(self._connection):
                self._xlib.XNextEvent(self._connection, event)
                damage = _Damage.from_buffer(event)
                if damage.type == self._first:
                    self._drawn(damage)
            select.select([self._xlib.XConnectionNumber(self._connection)], [], [], 0.1)

    def _drawn(self, area):
        """Notes a drawing on the screen, which has nothing but the window."""
        left, top = self._corner
        inside = area.x <= left < area.x + area.width and area.y <= top < area.y + area.height
        mark = self._memory[self._pixel:self._pixel + 4] if inside else None
        self.arrivals.picture(area.width * area.height * 4, mark)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ended = True
        self._thread.join()
        self._xlib.XCloseDisplay(self._connection)
        self._memory.close()
