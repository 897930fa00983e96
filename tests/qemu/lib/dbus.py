"""A D-Bus display client: it gets pixels, dma-bufs, and the pointer with its position."""

import mmap
import os
import socket
import struct
import threading

import gi

gi.require_version("Gio", "2.0")
from gi.repository import Gio, GLib  # noqa: E402  The version must be chosen first.
from PIL import Image  # noqa: E402

from . import processes  # noqa: E402
from .case import SCRATCH, Failure, output_file, until  # noqa: E402
from .pictures import pointer, raw_mode  # noqa: E402

_LISTENER = "/org/qemu/Display1/Listener"
_INTERFACE = """
<node><interface name="org.qemu.Display1.Listener">
  <method name="Scanout"><arg type="u" direction="in"/><arg type="u" direction="in"/><arg type="u" direction="in"/>
    <arg type="u" direction="in"/><arg type="ay" direction="in"/></method>
  <method name="Update"><arg type="i" direction="in"/><arg type="i" direction="in"/><arg type="i" direction="in"/>
    <arg type="i" direction="in"/><arg type="u" direction="in"/><arg type="u" direction="in"/>
    <arg type="ay" direction="in"/></method>
  <method name="ScanoutDMABUF"><arg type="h" direction="in"/><arg type="u" direction="in"/>
    <arg type="u" direction="in"/><arg type="u" direction="in"/><arg type="u" direction="in"/>
    <arg type="t" direction="in"/><arg type="b" direction="in"/></method>
  <method name="UpdateDMABUF"><arg type="i" direction="in"/><arg type="i" direction="in"/>
    <arg type="i" direction="in"/><arg type="i" direction="in"/></method>
  <method name="Disable"/>
  <method name="MouseSet"><arg type="i" direction="in"/><arg type="i" direction="in"/>
    <arg type="i" direction="in"/></method>
  <method name="CursorDefine"><arg type="i" direction="in"/><arg type="i" direction="in"/>
    <arg type="i" direction="in"/><arg type="i" direction="in"/><arg type="ay" direction="in"/></method>
  <property type="as" name="Interfaces" access="read"/>
</interface></node>
"""
# Optional interfaces: for surfaces that the client maps, and for dma-bufs with offsets and planes.
MAP = "org.qemu.Display1.Listener.Unix.Map"
SCANOUT_DMABUF2 = "org.qemu.Display1.Listener.Unix.ScanoutDMABUF2"
_BESIDE = {
    MAP: f"""
<node><interface name="{MAP}">
  <method name="ScanoutMap"><arg type="h" direction="in"/><arg type="u" direction="in"/><arg type="u" direction="in"/>
    <arg type="u" direction="in"/><arg type="u" direction="in"/><arg type="u" direction="in"/></method>
  <method name="UpdateMap"><arg type="i" direction="in"/><arg type="i" direction="in"/><arg type="i" direction="in"/>
    <arg type="i" direction="in"/></method>
</interface></node>
""",
    SCANOUT_DMABUF2: f"""
<node><interface name="{SCANOUT_DMABUF2}">
  <method name="ScanoutDMABUF2"><arg type="ah" direction="in"/><arg type="u" direction="in"/><arg type="u" direction="in"/>
    <arg type="u" direction="in"/><arg type="u" direction="in"/><arg type="au" direction="in"/><arg type="au" direction="in"/>
    <arg type="u" direction="in"/><arg type="u" direction="in"/><arg type="u" direction="in"/><arg type="u" direction="in"/>
    <arg type="t" direction="in"/><arg type="b" direction="in"/></method>
</interface></node>
""",
}
# Messages that QEMU may log when a client disconnects while an update is on its way.
IN_FLIGHT = ("Failed to call update",)

# pixman's x8r8g8b8 and a8r8g8b8, as DRM's XR24 and AR24.
_PIXMAN = (0x20020888, 0x20028888)


def _fourcc(code):
    return code.to_bytes(4, "little").decode("ascii", "replace")


class Bus:
    """A private message bus, for a `with` block."""

    def __init__(self):
        self.address = f"unix:path={os.path.join(SCRATCH, 'bus')}"
        ready, write_end = os.pipe()
        with open(output_file("bus.log"), "ab") as log:
            try:
                self._process = processes.start(
                    ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={self.address}",
                     f"--print-address={write_end}"], stdout=log, stderr=log, pass_fds=[write_end])
            except FileNotFoundError:
                raise SystemExit("dbus-daemon is missing: the tests need Debian's dbus-daemon") from None
        os.close(write_end)
        with open(ready, encoding="utf-8") as line:
            if not line.readline():
                raise Failure(f"dbus-daemon {processes.exit_text(self._process.wait(30))} (see bus.log)")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(30)


class DBusScreen:
    """A client of `-display dbus`, for a `with` block: over a bus, or peer to peer (`p2p=yes`).

    `interfaces`: those that it has beside the Listener's own.
    """

    def __init__(self, qemu, console=0, bus=None, interfaces=()):
        self._lock = threading.Lock()
        self._frame = None
        self._dmabuf = None
        self.scanouts, self.updates = [], 0
        self.cursor = self.place = None
        self.cursors = 0
        # A slow client: replies to UpdateDMABUF wait here while this is set.
        self._held = None
        self._context = GLib.MainContext.new()
        self._loop = GLib.MainLoop.new(self._context, False)
        self._thread = threading.Thread(target=self._run, daemon=True)

        if bus:
            flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
            self._display = Gio.DBusConnection.new_for_address_sync(bus.address, flags, None, None)
            self._name = "org.qemu"
            until("QEMU owns its name on the bus", self._is_owned)
        else:
            ours, theirs = socket.socketpair()
            qemu.send_fd("getfd", theirs, fdname="dbus-display")
            qemu.qmp("add_client", protocol="@dbus-display", fdname="dbus-display")
            theirs.close()
            self._display = self._connect(ours)
            self._name = None
        ours, theirs = socket.socketpair()
        fds = Gio.UnixFDList.new()
        handle = fds.append(theirs.fileno())
        theirs.close()
        self._display.call_with_unix_fd_list_sync(
            self._name, f"/org/qemu/Display1/Console_{console}", "org.qemu.Display1.Console", "RegisterListener",
            GLib.Variant("(h)", (handle,)), None, Gio.DBusCallFlags.NONE, 30000, fds, None)
        self._context.push_thread_default()
        self._listener = self._connect(ours, delay=True)
        self._interfaces = interfaces
        for xml in (_INTERFACE, *(_BESIDE[name] for name in interfaces)):
            node = Gio.DBusNodeInfo.new_for_xml(xml)
            self._listener.register_object(_LISTENER, node.interfaces[0], self._called, self._property, None)
        self._context.pop_thread_default()
        self._thread.start()
        self._listener.start_message_processing()

    def _is_owned(self):
        return self._display.call_sync(
            "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameHasOwner",
            GLib.Variant("(s)", (self._name,)), None, Gio.DBusCallFlags.NONE, 30000, None).unpack()[0]

    @staticmethod
    def _connect(end, delay=False):
        stream = Gio.Socket.new_from_fd(end.detach()).connection_factory_create_connection()
        flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT
        if delay:
            flags |= Gio.DBusConnectionFlags.DELAY_MESSAGE_PROCESSING
        return Gio.DBusConnection.new_sync(stream, None, flags, None, None)

    def _run(self):
        self._context.push_thread_default()
        self._loop.run()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Disconnects."""
        self._listener.close_sync()
        self._display.close_sync()
        # The thread may not have started the loop yet.
        quit_loop = GLib.idle_source_new()
        quit_loop.set_callback(lambda *_: self._loop.quit())
        quit_loop.attach(self._context)
        self._thread.join()
        if self._dmabuf:
            os.close(self._dmabuf[0])
            self._dmabuf = None

    def _property(self, _connection, _sender, _path, _interface, _name):
        return GLib.Variant("as", self._interfaces)

    def _called(self, _connection, _sender, _path, _interface, method, parameters, invocation):
        values = parameters.unpack() if method not in ("Scanout", "Update", "CursorDefine") else None
        with self._lock:
            if method == "Scanout":
                width, height, stride, form = (parameters.get_child_value(i).get_uint32() for i in range(4))
                self._forget_dmabuf()
                self._frame = self._image(parameters.get_child_value(4), width, height, stride, form)
                self.scanouts.append(f"surface {width}x{height}")
            elif method == "Update":
                x, y, width, height = (parameters.get_child_value(i).get_int32() for i in range(4))
                stride, form = (parameters.get_child_value(i).get_uint32() for i in (4, 5))
                part = self._image(parameters.get_child_value(6), width, height, stride, form)
                if self._frame:
                    self._frame.paste(part, (x, y))
                self.updates += 1
            elif method == "ScanoutDMABUF":
                fds = invocation.get_message().get_unix_fd_list().steal_fds()
                self._forget_dmabuf()
                _, width, height, stride, fourcc, modifier, upside_down = values
                self._frame = None
                self._dmabuf = (fds[0], (0, 0, width, height), 0, stride, height, raw_mode(fourcc), -1 if upside_down else 1)
                self.scanouts.append(f"dma-buf {width}x{height} {_fourcc(fourcc)} modifier {modifier:#x}")
            elif method == "ScanoutDMABUF2":
                fds = invocation.get_message().get_unix_fd_list().steal_fds()
                self._forget_dmabuf()
                (handles, x, y, width, height, offsets, strides, planes, fourcc, backing_width, backing_height, modifier,
                 upside_down) = values
                self._frame = None
                self._dmabuf = (fds[handles[0]], (x, y, x + width, y + height), offsets[0], strides[0], backing_height,
                                raw_mode(fourcc), -1 if upside_down else 1)
                for other in fds[1:]:
                    os.close(other)
                self.scanouts.append(f"dma-buf {width}x{height} {_fourcc(fourcc)} modifier {modifier:#x}, {planes} planes, "
                                     f"backed by {backing_width}x{backing_height}")
            elif method == "UpdateDMABUF":
                self.updates += 1
                if self._held is not None:
                    self._held.append(invocation)
                    return
            elif method == "Disable":
                self._forget_dmabuf()
                self._frame = None
                self.scanouts.append("disabled")
            elif method == "MouseSet":
                self.place = values
            elif method == "CursorDefine":
                width, height, hot_x, hot_y = (parameters.get_child_value(i).get_int32() for i in range(4))
                pixels = bytes(parameters.get_child_value(4).get_data_as_bytes().get_data())
                self.cursor = {"size": (width, height), "hotspot": (hot_x, hot_y), "pixels": pixels}
                self.cursors += 1
        invocation.return_value(None)

    @staticmethod
    def _image(data, width, height, stride, form):
        if form not in _PIXMAN:
            raise Failure(f"D-Bus display: unknown pixman format {form:#x}")
        pixels = data.get_data_as_bytes().get_data()
        # The last row may lack its padding.
        return Image.frombytes("RGB", (width, height), bytes(pixels).ljust(stride * height, b"\0"), "raw", "BGRX", stride)

    def _forget_dmabuf(self):
        if self._dmabuf:
            os.close(self._dmabuf[0])
            self._dmabuf = None

    def picture(self):
        """Returns what the client shows; None if nothing."""
        with self._lock:
            if self._dmabuf:
                fd, box, offset, stride, height, mode, order = self._dmabuf
                with mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ) as memory:
                    data = memory[offset:offset + stride * height].ljust(stride * height, b"\0")
                return Image.frombytes("RGB", (box[2], height), data, "raw", mode, stride, order).crop(box)
            return self._frame.copy() if self._frame else None

    def pointer(self):
        """Returns the pointer that the client draws; None if there is none."""
        with self._lock:
            found, place = self.cursor, self.place
        if not found or not place or not place[2]:
            return None
        return pointer(found["size"], found["pixels"], "BGRA", hotspot=found["hotspot"], place=place[:2])

    def hold(self):
        """Has the client keep what it gets, and not say that it is done with it."""
        with self._lock:
            self._held = []

    def held(self):
        """Returns how many updates wait for the client."""
        with self._lock:
            return len(self._held)

    def release(self):
        """Has the client release all that it kept."""
        with self._lock:
            held, self._held = self._held, None
        for invocation in held:
            invocation.return_value(None)

    def set_size(self, width, height, width_mm=0, height_mm=0):
        """Resizes the window, as a user does."""
        self._display.call_sync(
            self._name, "/org/qemu/Display1/Console_0", "org.qemu.Display1.Console", "SetUIInfo",
            GLib.Variant("(qqiiuu)", (width_mm, height_mm, 0, 0, width, height)), None, Gio.DBusCallFlags.NONE, 30000, None)

    def wait_pointer(self, what, colour, place):
        """Waits for a pointer of one colour (BGRA) at this position, and returns it."""
        def there():
            with self._lock:
                cursor, at = self.cursor, self.place
            if cursor and at == place and set(struct.unpack(f"{len(cursor['pixels']) // 4}I", cursor["pixels"])) == {colour}:
                return cursor
            return None

        return until(what, there)


class MappingScreen(DBusScreen):
    """A D-Bus client that maps the memory of surfaces."""

    def __init__(self, qemu, console=0):
        self._map = None
        self.maps = self.updated = 0
        super().__init__(qemu, console, interfaces=[MAP])

    def __exit__(self, *_):
        self.close()
        if self._map:
            os.close(self._map[0])

    def _called(self, connection, sender, path, interface, *call):
        answer = self._mapped if interface == MAP else super()._called
        answer(connection, sender, path, interface, *call)

    def _mapped(self, _connection, _sender, _path, _interface, method, parameters, invocation):
        if method == "ScanoutMap":
            fds = invocation.get_message().get_unix_fd_list().steal_fds()
            with self._lock:
                if self._map:
                    os.close(self._map[0])
                self._map = (fds[0], *parameters.unpack()[1:])
                self.maps += 1
        else:
            self.updated += 1
        invocation.return_value(None)

    def picture(self):
        """Returns what the client shows; None if nothing, or if it was sent pixels."""
        with self._lock:
            if not self._map or self._frame:
                return None
            fd, offset, width, height, stride, _ = self._map
            with mmap.mmap(fd, offset + stride * height, prot=mmap.PROT_READ) as memory:
                return Image.frombytes("RGB", (width, height), memory[offset:], "raw", "BGRX", stride)
