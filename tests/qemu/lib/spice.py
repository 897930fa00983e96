"""A SPICE client: spice-gtk without its window, which gets pictures and dma-bufs."""

import ctypes
import mmap
import os
import threading
import time

import gi

try:
    gi.require_version("SpiceClientGLib", "2.0")
except ValueError as error:
    raise SystemExit(f"{error}: the tests need Debian's gir1.2-spiceclientglib-2.0") from error
from gi.repository import GLib, GObject, SpiceClientGLib  # noqa: E402  The version must be chosen first.
from PIL import Image  # noqa: E402

from .case import SCRATCH, Failure  # noqa: E402
from .pictures import pointer, raw_mode  # noqa: E402

SOCKET = os.path.join(SCRATCH, "spice")

# Messages that QEMU may log when a client disconnects while something is on its way.
GOODBYE = "Spice: Connection reset by peer", "Spice: Broken pipe"

# QEMU logs that it has waited for a client for a second.
IMPATIENCE = "no gl-unblock within one second", "no gl-draw-done within one second"

# No lossy compression.
LOSSLESS = ("image-compression=off,jpeg-wan-compression=never,zlib-glz-wan-compression=never,streaming-video=off,"
            "playback-compression=off")


def arguments(gl=False):
    """Returns QEMU's arguments for a SPICE server for this client."""
    return ["-spice", f"unix=on,addr={SOCKET},disable-ticketing=on,gl={'on' if gl else 'off'},{LOSSLESS}"]


class _Loop:
    """The thread of the process's main context, in which spice-gtk works."""

    def __init__(self):
        self._loop = GLib.MainLoop()
        threading.Thread(target=self._loop.run, daemon=True).start()

    @staticmethod
    def call(action):
        """Runs a function in that thread, and returns its result."""
        done, outcome = threading.Event(), []

        def run():
            try:
                outcome.append((action(), None))
            except Exception as error:  # noqa: BLE001  It is raised where it was asked for.
                outcome.append((None, error))
            done.set()
            return GLib.SOURCE_REMOVE

        GLib.idle_add(run)
        if not done.wait(30):
            raise Failure("SPICE: the client does not answer itself")
        result, error = outcome[0]
        if error:
            raise error
        return result


_loop = None


class Spice:
    """A client, for a `with` block."""

    def __init__(self, console=0):
        global _loop
        _loop = _loop or _Loop()
        self._console = console
        self._display = None
        # The address of the primary surface, its size and stride; whether it was shown last.
        self._surface = None
        self._shows_scanout = False
        self.scanouts, self.draws, self.updates = [], 0, 0
        self.cursor = self.place = None
        self.error = None
        # Channels that are not open yet.
        self._opening = set()
        # A slow client: gl-draw-done is not sent while this is set.
        self._slow = False
        self._owed = 0
        self._session = _loop.call(self._connect)

    def _connect(self):
        session = SpiceClientGLib.Session()
        for name, value in (("unix-path", SOCKET), ("enable-audio", False), ("enable-usbredir", False),
                            ("enable-smartcard", False)):
            session.set_property(name, value)
        GObject.Object.connect(session, "channel-new", self._new_channel)
        if not session.connect():
            raise Failure("SPICE: the session does not connect")
        return session

    def _new_channel(self, _session, channel):
        def on(signal, handler):
            GObject.Object.connect(channel, signal, handler)

        on("channel-event", self._event)
        if isinstance(channel, SpiceClientGLib.DisplayChannel):
            if channel.get_property("channel-id") != self._console:
                return
            self._display = channel
            on("display-primary-create", self._created)
            on("display-primary-destroy", self._destroyed)
            on("display-invalidate", self._invalidated)
            on("notify::gl-scanout", self._scanned_out)
            on("gl-draw", self._drawn)
        elif isinstance(channel, SpiceClientGLib.CursorChannel):
            if channel.get_property("channel-id") != self._console:
                return
            on("cursor-set", self._cursor_set)
            on("cursor-move", self._cursor_moved)
            on("cursor-hide", self._cursor_hidden)
        elif not isinstance(channel, SpiceClientGLib.MainChannel):
            return
        self._opening.add(channel)
        channel.connect()

    def _event(self, channel, event):
        self._opening.discard(channel)
        if event not in (SpiceClientGLib.ChannelEvent.OPENED, SpiceClientGLib.ChannelEvent.SWITCHING):
            self.error = self.error or f"{type(channel).__name__}: {event.value_nick}"

    def _created(self, _channel, form, width, height, stride, _shmid, address):
        self._surface = (address, width, height, stride)
        self.scanouts.append(f"surface {width}x{height}")
        if form != 32:
            self.error = f"unknown SPICE surface format {form}"

    def _destroyed(self, _channel):
        self._surface = None

    def _invalidated(self, *_):
        # Like spice-gtk's widget: what is drawn replaces what was scanned out.
        self._shows_scanout = False
        self.updates += 1

    def _scanned_out(self, channel, _property):
        self._shows_scanout = True
        scanout = channel.get_gl_scanout()
        if scanout.fd < 0:
            self.scanouts.append("disabled")
            return
        fourcc = scanout.format.to_bytes(4, "little").decode("ascii", "replace")
        self.scanouts.append(f"dma-buf {scanout.width}x{scanout.height} {fourcc}")

    def _drawn(self, channel, *_):
        self._shows_scanout = True
        self.draws += 1
        if self._slow:
            self._owed += 1
        else:
            channel.gl_draw_done()

    def _cursor_set(self, _channel, width, height, hot_x, hot_y, pixels):
        data = ctypes.string_at(pixels, width * height * 4) if pixels else b""
        self.cursor = {"size": (width, height), "hotspot": (hot_x, hot_y), "pixels": data}

    def _cursor_moved(self, _channel, x, y):
        self.place = x, y

    def _cursor_hidden(self, _channel):
        self.cursor = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # libspice-server 0.15.1 crashes if a client disconnects while it connects: see
        # tests/soak/README.md.
        deadline = time.monotonic() + 30
        while not self.has_connected() and time.monotonic() < deadline:
            time.sleep(0.01)
        _loop.call(self._leave)

    def has_connected(self):
        """Returns whether all channels are open and it has been sent a picture, of whatever format, or cannot be."""
        return bool(not self._opening and (self._surface or self.scanouts) or self.error)

    def _leave(self):
        self._session.disconnect()
        # The channel refers to us, and keeps the last picture's file while it is there. Who lets go
        # of either elsewhere than in their own thread meets them while they end.
        self._session = self._display = None

    def picture(self):
        """Returns what the client shows; None if nothing."""
        if self.error:
            raise Failure(f"SPICE: {self.error}")
        return _loop.call(self._picture)

    def _picture(self):
        if self._shows_scanout:
            scanout = self._display.get_gl_scanout()
            if scanout is None or scanout.fd < 0:
                return None
            size, stride = (scanout.width, scanout.height), scanout.stride
            length = stride * scanout.height
            with mmap.mmap(scanout.fd, os.fstat(scanout.fd).st_size, prot=mmap.PROT_READ) as memory:
                data = memory[:length].ljust(length, b"\0")
            return Image.frombytes("RGB", size, data, "raw", raw_mode(scanout.format), stride, -1 if scanout.y0top else 1)
        if self._surface is None:
            return None
        address, width, height, stride = self._surface
        return Image.frombytes("RGB", (width, height), ctypes.string_at(address, stride * height), "raw", "BGRX", stride)

    def hold(self):
        """Has the client not say that it has drawn."""
        self._slow = True

    def owed(self):
        """Returns how many draws the client has not confirmed."""
        return self._owed

    def release(self):
        """Has the client confirm its draws, and from now on confirm at once."""
        def catch_up():
            self._slow = False
            for _ in range(self._owed):
                self._display.gl_draw_done()
            self._owed = 0

        _loop.call(catch_up)

    def pointer(self):
        """Returns the pointer that the client draws; None if there is none."""
        if self.error:
            raise Failure(f"SPICE: {self.error}")
        found = self.cursor
        return found and pointer(found["size"], found["pixels"], "RGBA", hotspot=found["hotspot"], place=self.place)
