"""Clients of the front ends that take all they can get, and note when which picture came."""

import ctypes
import mmap
import os
import time

from lib import Vnc
from lib.dbus import DBusScreen
from lib.spice import Spice

# Where a marked flip has its number, and as much memory as holds that pixel in any mode.
_MARK_AT = 0, 0
_PAGE = mmap.PAGESIZE


class Arrivals:
    """What came, and when."""

    def __init__(self):
        self.pictures = 0
        self.bytes = 0
        # (nanoseconds of CLOCK_MONOTONIC, number of the marked flip) of those pictures that have a mark.
        self.marks = []

    def picture(self, size, mark):
        """A picture or a part of one came. `mark`: the pixel in its corner, blue first, if it is part of it."""
        self.pictures += 1
        self.bytes += size
        if mark is not None:
            self.marks.append((time.monotonic_ns(), int.from_bytes(mark[:3], "little")))


class VncViewer(Vnc):
    """Asks for the next update as soon as it has one; raw pixels, which nobody draws."""

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
    """Takes pixels and dma-bufs, and draws nothing."""

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
        invocation.return_value(None)

    def _forget(self):
        if self._memory:
            self._memory.close()
            self._memory = None

    def close(self):
        """Goes away."""
        super().close()
        self._forget()


class SpiceViewer(Spice):
    """spice-gtk, which decodes what comes into a surface."""

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
