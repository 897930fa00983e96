"""A VNC client, which sees what a front end is given, including what OpenGL reads back."""

import socket
import struct

from pictures import Picture
from qemu import PATIENCE_S, QemuError

RAW, DESKTOP_SIZE, EXTENDED_DESKTOP_SIZE = 0, -223, -308


class Vnc:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(path)
        self.read(12)
        self.socket.sendall(b"RFB 003.008\n")
        types = self.read(self.read(1)[0])
        if 1 not in types:
            raise QemuError(f"VNC offers no access without a password: {types!r}")
        self.socket.sendall(b"\1")
        self.read(4)
        self.socket.sendall(b"\1")
        self.width, self.height = struct.unpack(">HH", self.read(4))
        self.read(16)
        self.read(struct.unpack(">I", self.read(4))[0])
        # 32 bits, depth 24, little endian: blue, green, red, unused.
        self.socket.sendall(struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        encodings = (RAW, DESKTOP_SIZE, EXTENDED_DESKTOP_SIZE)
        self.socket.sendall(struct.pack(">BxH3i", 2, len(encodings), *encodings))
        self.pixels = bytearray(self.width * self.height * 4)

    def read(self, size):
        data = bytearray()
        while len(data) < size:
            more = self.socket.recv(min(size - len(data), 1 << 20))
            if not more:
                raise QemuError("QEMU closed the VNC connection")
            data += more
        return bytes(data)

    def picture(self):
        """Requests the whole screen, and returns it when it has come."""
        self.socket.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, self.width, self.height))
        drawn = 0
        while not drawn:
            kind = self.read(1)[0]
            if kind == 0:
                drawn = self.update()
            elif kind == 3:
                self.read(3)
                self.read(struct.unpack(">I", self.read(4))[0])
            elif kind != 2:
                raise QemuError(f"unexpected VNC message {kind}")
        return Picture.from_xrgb(self.width, self.height, self.pixels)

    def update(self):
        """Reads one framebuffer update. Returns the number of rectangles with pixels."""
        drawn = 0
        for _ in range(struct.unpack(">xH", self.read(3))[0]):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self.read(12))
            if encoding == RAW:
                data = self.read(width * height * 4)
                for row in range(height):
                    start = ((y + row) * self.width + x) * 4
                    line = data[row * width * 4 : (row + 1) * width * 4]
                    self.pixels[start : start + width * 4] = line
                drawn += 1
            elif encoding in (DESKTOP_SIZE, EXTENDED_DESKTOP_SIZE):
                if encoding == EXTENDED_DESKTOP_SIZE:
                    self.read(16 * self.read(4)[0])
                if (width, height) != (self.width, self.height):
                    self.width, self.height = width, height
                    self.pixels = bytearray(width * height * 4)
            else:
                raise QemuError(f"unexpected VNC encoding {encoding}")
        return drawn

    def resize(self, width, height):
        """Requests another size, as a resized window does."""
        screen = struct.pack(">IHHHHI", 0, 0, 0, width, height, 0)
        self.socket.sendall(struct.pack(">BxHHBx", 251, width, height, 1) + screen)

    def close(self):
        self.socket.close()
