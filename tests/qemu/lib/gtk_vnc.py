"""A VNC client that is not ours: gtk-vnc, without its window; what it would draw the mouse as."""

import ctypes
import socket
import threading

import gi

try:
    gi.require_version("GVnc", "1.0")
except ValueError as error:
    raise SystemExit(f"{error}: the tests need Debian's gir1.2-gtk-vnc-2.0") from error
from gi.repository import GLib, GObject, GVnc  # noqa: E402  The version must be chosen first.

from .pictures import pointer  # noqa: E402

_NO_AUTHENTICATION = 1


class GtkVnc:
    """A client, from the start to the end of a `with` block."""

    def __init__(self, path):
        self._found = None
        self._loop = GLib.MainLoop()
        self._library = ctypes.CDLL("libgvnc-1.0.so.0")
        self._library.vnc_cursor_get_data.restype = ctypes.c_void_p
        end = socket.socket(socket.AF_UNIX)
        end.connect(path)
        GLib.idle_add(self._open, end.detach())
        self._thread = threading.Thread(target=self._loop.run, daemon=True)
        self._thread.start()

    def _open(self, fd):
        self._connection = GVnc.Connection()
        for signal, handler in (("vnc-auth-choose-type", self._authenticate), ("vnc-initialized", self._initialized),
                                ("vnc-cursor-changed", self._cursor_changed)):
            GObject.Object.connect(self._connection, signal, handler)
        self._connection.open_fd(fd)
        return GLib.SOURCE_REMOVE

    @staticmethod
    def _authenticate(connection, _types):
        connection.set_auth_type(_NO_AUTHENTICATION)

    def _initialized(self, connection):
        # It asks for no picture, since it has nothing to draw it on.
        connection.set_encodings([GVnc.ConnectionEncoding.ALPHA_CURSOR, GVnc.ConnectionEncoding.RAW])

    def _cursor_changed(self, _connection, cursor):
        if cursor is None:
            self._found = None
            return
        size = cursor.get_width(), cursor.get_height()
        data = self._library.vnc_cursor_get_data(ctypes.c_void_p(hash(cursor)))
        # It is a GdkPixbuf's.
        self._found = pointer(size, ctypes.string_at(data, size[0] * size[1] * 4), "RGBA",
                              hotspot=(cursor.get_hotx(), cursor.get_hoty()))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        GLib.idle_add(self._connection.shutdown)
        GLib.idle_add(self._loop.quit)
        self._thread.join(30)

    def pointer(self):
        """The pointer that the client draws; None if there is none."""
        return self._found
