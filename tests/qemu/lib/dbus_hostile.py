"""Hostile D-Bus clients: silent, slow, not reading, or truncating what they map."""

import os
import socket
import struct
import threading

from gi.repository import Gio, GLib

from .case import say
from .dbus import DBusScreen, MappingScreen

# Messages about clients that disconnect before they have authenticated.
NEWCOMERS = ("Failed to setup p",)


class Slow(MappingScreen):
    """A client that is slow to map what it is given."""

    def __init__(self, qemu, console=0):
        self.asked = []
        super().__init__(qemu, console)

    def _mapped(self, connection, sender, path, interface, method, parameters, invocation):
        if method == "ScanoutMap" and self.asked is not None:
            self.asked.append((connection, sender, path, interface, method, parameters, invocation))
        else:
            super()._mapped(connection, sender, path, interface, method, parameters, invocation)

    def answer(self):
        """Maps what it was given, and from now on maps at once."""
        asked, self.asked = self.asked, None
        for call in asked:
            super()._mapped(*call)

    def refuse(self):
        """Fails to map it."""
        asked, self.asked = self.asked, []
        for call in asked:
            call[-1].return_dbus_error("org.qemu.Test", "no memory")

    def picture(self):
        """Returns what the client shows, mapped or sent."""
        return super().picture() if self._map else DBusScreen.picture(self)

    def truncate(self):
        """Tries to take the memory away, and prints what happens."""
        for size in 0, 1 << 30:
            try:
                os.truncate(self._map[0], size)
            except OSError as error:
                say(f"    truncated to {size} bytes: {error.strerror}")
            else:
                say(f"    truncated to {size} bytes: done")


class Deaf(DBusScreen):
    """A client that can stop reading what QEMU sends: a proxy, since GDBus always reads."""

    def __init__(self, *arguments, **options):
        self._reads = threading.Event()
        self._reads.set()
        self._between = []
        super().__init__(*arguments, **options)

    def _connect(self, end, delay=False):
        if not delay:
            return super()._connect(end)
        near, far = socket.socketpair()
        for source, sink, reads in (end, near, self._reads), (near, end, None):
            self._between.append(threading.Thread(target=self._pass_on, args=(source, sink, reads), daemon=True))
            self._between[-1].start()
        self._ends = end, near
        return super()._connect(far, delay)

    @staticmethod
    def _pass_on(source, sink, reads):
        """Passes on one message. A descriptor belongs to the message whose first byte it came with."""
        def read(count):
            data = bytearray()
            while len(data) < count:
                part = source.recv(count - len(data))
                if not part:
                    raise ConnectionError
                data += part
            return data

        try:
            while True:
                if reads:
                    reads.wait()
                first, fds, _, _ = socket.recv_fds(source, 1, 64)
                if not first:
                    break
                message = bytearray(first)
                if first == b"l":
                    message += read(15)
                    body, fields = struct.unpack("<4xI4xI", message)
                    message += read(-(-fields // 8) * 8 + body)
                else:
                    # First come the lines of the authentication.
                    while message[-1:] not in (b"\n", b"\0"):
                        message += read(1)
                socket.send_fds(sink, [message[:1]], fds)
                sink.sendall(message[1:])
                for fd in fds:
                    os.close(fd)
        except OSError:
            pass
        for end in source, sink:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self):
        """Stops reading, except for what is under way."""
        self._reads.clear()

    def go_on(self):
        """Goes on reading."""
        self._reads.set()

    def close(self):
        """Disconnects."""
        self.go_on()
        super().close()
        for thread in self._between:
            thread.join()
        for end in self._ends:
            end.close()


class Silent:
    """Registers listeners, and then is silent."""

    def __init__(self, qemu, console=0):
        ours, theirs = socket.socketpair()
        qemu.send_fd("getfd", theirs, fdname="silent")
        qemu.qmp("add_client", protocol="@dbus-display", fdname="silent")
        theirs.close()
        stream = Gio.Socket.new_from_fd(ours.detach()).connection_factory_create_connection()
        flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT
        self._display = Gio.DBusConnection.new_sync(stream, None, flags, None, None)
        self._console = f"/org/qemu/Display1/Console_{console}"
        self._ends = []

    def register(self):
        """Registers one more."""
        ours, theirs = socket.socketpair()
        fds = Gio.UnixFDList.new()
        handle = fds.append(theirs.fileno())
        theirs.close()
        self._ends.append(ours)
        self._display.call_with_unix_fd_list_sync(
            None, self._console, "org.qemu.Display1.Console", "RegisterListener", GLib.Variant("(h)", (handle,)), None,
            Gio.DBusCallFlags.NONE, 30000, fds, None)

    def register_and_authenticate(self):
        """Registers one more, which authenticates and then answers nothing."""
        self.register()
        stream = Gio.Socket.new_from_fd(self._ends.pop().detach()).connection_factory_create_connection()
        flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.DELAY_MESSAGE_PROCESSING
        self._ends.append(Gio.DBusConnection.new_sync(stream, None, flags, None, None))

    def close(self):
        """Disconnects."""
        for end in self._ends:
            (end.close_sync if isinstance(end, Gio.DBusConnection) else end.close)()
        # Peer to peer there is one client: the last one to connect.
        if not self._display.is_closed():
            self._display.close_sync()
