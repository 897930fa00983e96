"""A minimal VNC client (RFB 3.8, raw encoding)."""

import fcntl
import socket
import struct
import termios
import threading
import zlib

from PIL import Image

from .case import Failure, until
from .pictures import pointer

RAW, ZLIB, DESKTOP_SIZE, RICH_CURSOR, EXTENDED_DESKTOP_SIZE, ALPHA_CURSOR = 0, 6, -223, -239, -308, -314
# The colour where the client was sent nothing; no test draws it.
_NOTHING = 0xFF, 0x00, 0xFE


class Vnc:
    """A client that always requests updates, for a `with` block."""

    def __init__(self, path, encodings=(RAW, DESKTOP_SIZE, EXTENDED_DESKTOP_SIZE, ALPHA_CURSOR)):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(path)
        self._lock = threading.Lock()
        self._frame = None
        self._complete = False
        self.cursor = None
        self.cursors = 0
        self.updates = 0
        self.resizes = []
        self.error = None
        self._inflate = zlib.decompressobj()
        self._reads = threading.Event()
        self._reads.set()
        self._handshake(encodings)
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # QEMU closed it before.
        self._thread.join()
        self._socket.close()

    def _receive(self, count):
        data = bytearray()
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise ConnectionError("QEMU closed the VNC connection")
            data += part
        return bytes(data)

    def _unpack(self, form):
        return struct.unpack(form, self._receive(struct.calcsize(form)))

    def _reason(self):
        (length,) = self._unpack(">I")
        return self._receive(length).decode(errors="replace")

    def _handshake(self, encodings):
        self._receive(12)
        self._socket.sendall(b"RFB 003.008\n")
        (count,) = self._unpack(">B")
        if count == 0:
            raise Failure(f"VNC: refused: {self._reason()}")
        self._receive(count)
        self._socket.sendall(b"\x01")
        (result,) = self._unpack(">I")
        if result:
            raise Failure(f"VNC: refused: {self._reason()}")
        self._socket.sendall(b"\x01")
        width, height = self._unpack(">HH")
        self._receive(16)
        (length,) = self._unpack(">I")
        self._receive(length)
        self._frame = Image.new("RGB", (width, height), _NOTHING)
        self._socket.sendall(struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        self._socket.sendall(struct.pack(f">BxH{len(encodings)}i", 2, len(encodings), *encodings))
        self._request(False)

    def _request(self, incremental):
        width, height = self._frame.size
        self._socket.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, width, height))

    def _run(self):
        try:
            while True:
                (kind,) = self._unpack(">B")
                self._reads.wait()
                if kind == 0:
                    self._update()
                elif kind == 2:
                    pass  # The bell.
                elif kind == 3:
                    self._receive(3)
                    self._reason()
                else:
                    raise ConnectionError(f"unknown VNC message {kind}")
        except OSError as error:
            self.error = error

    def hold(self):
        """Has the client read no more than a message's first byte."""
        self._reads.clear()

    def unread(self):
        """Returns how many bytes were sent that the client has not read; more may wait in QEMU."""
        return struct.unpack("i", fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4)))[0]

    def release(self):
        """Has the client read all that it was sent."""
        self._reads.set()

    def _update(self):
        (count,) = self._unpack(">xH")
        resized = False
        with self._lock:
            for _ in range(count):
                x, y, width, height, encoding = self._unpack(">HHHHi")
                if encoding == RAW:
                    self._pixels(x, y, width, height)
                elif encoding == ZLIB:
                    (length,) = self._unpack(">I")
                    self._paste(x, y, width, height, self._inflate.decompress(self._receive(length)))
                elif encoding in (DESKTOP_SIZE, EXTENDED_DESKTOP_SIZE):
                    if encoding == EXTENDED_DESKTOP_SIZE:
                        (screens,) = self._unpack(">Bxxx")
                        self._receive(16 * screens)
                    if encoding == DESKTOP_SIZE or x != 1:
                        # With x = 1 it only answers our own request.
                        if self._frame.size != (width, height):
                            self._frame = Image.new("RGB", (width, height), _NOTHING)
                            self.resizes.append((width, height))
                            resized = True
                elif encoding == ALPHA_CURSOR:
                    self._unpack(">i")
                    data = self._receive(width * height * 4)
                    self.cursors += 1
                    self.cursor = {"hotspot": (x, y), "size": (width, height), "pixels": data}
                elif encoding == RICH_CURSOR:
                    data = self._receive(width * height * 4)
                    mask = self._receive((width + 7) // 8 * height)
                    self.cursors += 1
                    self.cursor = {"hotspot": (x, y), "size": (width, height), "pixels": data, "mask": mask}
                else:
                    raise ConnectionError(f"unknown VNC encoding {encoding}")
            self.updates += 1
        self._request(not resized)

    def _pixels(self, x, y, width, height):
        self._paste(x, y, width, height, self._receive(width * height * 4))

    def _paste(self, x, y, width, height, data):
        self._frame.paste(Image.frombytes("RGB", (width, height), data, "raw", "BGRX"), (x, y))

    def forget(self):
        """Has the client forget what it shows, and request all of it."""
        with self._lock:
            self._frame = Image.new("RGB", self._frame.size, _NOTHING)
        self._request(False)

    def picture(self):
        """Returns what the client shows."""
        if self.error:
            raise Failure(f"VNC: {self.error}")
        with self._lock:
            return self._frame.copy()

    def pointer(self):
        """Returns the pointer that the client draws; None if there is none."""
        if self.error:
            raise Failure(f"VNC: {self.error}")
        with self._lock:
            found = self.cursor
        return found and pointer(found["size"], found["pixels"], "RGBA", hotspot=found["hotspot"])

    def ask_size(self, width, height):
        """Resizes the window, as a user does (SetDesktopSize)."""
        self._socket.sendall(struct.pack(">BxHHBxIHHHHI", 251, width, height, 1, 0, 0, 0, width, height, 0))

    def press(self, *keysyms):
        """Presses keys together, and releases them."""
        for down, order in (1, keysyms), (0, reversed(keysyms)):
            for keysym in order:
                self._socket.sendall(struct.pack(">BBxxI", 4, down, keysym))

    def wait_cursor(self, what, condition):
        """Waits until the pointer is as wanted, and returns it."""
        def cursor():
            if self.error:
                raise Failure(f"VNC: {self.error}")
            with self._lock:
                found = self.cursor
            return found if found and condition(found) else None

        return until(what, cursor)


class Reckless(Vnc):
    """A client that reads all that it is sent, whatever it is, and asks for more when it is told to."""

    received = 0

    def _run(self):
        try:
            while data := self._socket.recv(1 << 20):
                self.received += len(data)
        except OSError as error:
            self.error = error

    def ask(self, incremental):
        """Asks for what has changed, or for all."""
        self._request(incremental)
