"""An independent VNC client: gtk-vnc without its window, and the mouse pointer that it would draw.

It has a process of its own: the library's coroutines and Python's threads do not go together.
"""

import os
import subprocess
import sys
import threading

from .pictures import pointer


class GtkVnc:
    """A client, for a `with` block."""

    def __init__(self, path):
        self._found = None
        self._process = subprocess.Popen([sys.executable, "-m", f"{__package__}.gtk_vnc", path], stdout=subprocess.PIPE, text=True,
                                         cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        for line in self._process.stdout:
            width, height, *hotspot, pixels = line.split(" ")
            self._found = pointer((int(width), int(height)), bytes.fromhex(pixels), "RGBA", hotspot=tuple(map(int, hotspot)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(30)
        self._thread.join(30)

    def pointer(self):
        """Returns the pointer that the client draws; None if there is none."""
        return self._found


def main(path):
    """Writes a line for each pointer: its width, height, hotspot and pixels."""
    import ctypes
    import socket

    import gi

    try:
        gi.require_version("GVnc", "1.0")
    except ValueError as error:
        raise SystemExit(f"{error}: the tests need Debian's gir1.2-gtk-vnc-2.0") from error
    from gi.repository import GLib, GObject, GVnc

    no_authentication = 1
    library = ctypes.CDLL("libgvnc-1.0.so.0")
    library.vnc_cursor_get_data.restype = ctypes.c_void_p

    def premultiplied(pixels):
        """The pixels as they were sent: 1.5, Debian 13's, divides them by alpha, as GdkPixbuf wants them; 1.3 does not."""
        if GVnc.util_get_version() < 0x010500:
            return pixels
        alphas = pixels[3::4]
        return bytes(value if place % 4 == 3 else -(-value * alphas[place // 4] // 255) for place, value in enumerate(pixels))

    def initialized(connection):
        # It requests no picture, since it has nothing to draw on.
        connection.set_encodings([GVnc.ConnectionEncoding.ALPHA_CURSOR, GVnc.ConnectionEncoding.RAW])

    def cursor_changed(_connection, cursor):
        if cursor is None:
            return print("1 1 0 0 00000000", flush=True)
        width, height = cursor.get_width(), cursor.get_height()
        # The pixels are a GdkPixbuf's.
        data = ctypes.string_at(library.vnc_cursor_get_data(ctypes.c_void_p(hash(cursor))), width * height * 4)
        return print(width, height, cursor.get_hotx(), cursor.get_hoty(), premultiplied(data).hex(), flush=True)

    connection = GVnc.Connection()
    for signal, handler in (("vnc-auth-choose-type", lambda connection, _types: connection.set_auth_type(no_authentication)),
                            ("vnc-initialized", initialized), ("vnc-cursor-changed", cursor_changed)):
        GObject.Object.connect(connection, signal, handler)
    end = socket.socket(socket.AF_UNIX)
    end.connect(path)
    connection.open_fd(end.detach())
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(sys.argv[1])
