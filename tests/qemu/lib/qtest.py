"""A guest without a CPU: its memory and I/O ports through QEMU's qtest protocol, and ramfb by them."""

import base64
import os
import socket
import struct

from .case import SCRATCH, Failure, until

_FW_CFG_SELECTOR, _FW_CFG_DATA, _FW_CFG_DMA = 0x510, 0x511, 0x514
_FW_CFG_DIRECTORY = 0x19
_DMA_SELECT_AND_WRITE = 0x18
# Somewhere in the guest's 64 MiB.
_DMA_ADDRESS, FRAMEBUFFER = 0x100000, 0x1000000


class Qtest:
    """Arguments for QEMU, and the connection once it runs."""

    def __init__(self, name="qtest"):
        self._path = os.path.join(SCRATCH, name)
        self.arguments = ["-qtest", f"unix:{self._path},server=on,wait=off", "-qtest-log", "none"]
        self._socket = self._lines = None

    def connect(self):
        """Connects to the QEMU that has the arguments."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)

        def connected():
            try:
                self._socket.connect(self._path)
            except OSError:
                return False
            return True

        until("QEMU's qtest socket", connected)
        self._lines = self._socket.makefile("r", encoding="ascii")

    def command(self, text):
        """Runs a command, and returns the words of its answer."""
        self._socket.sendall(text.encode("ascii") + b"\n")
        while True:
            words = self._lines.readline().split()
            if not words or words[0] == "FAIL":
                raise Failure(f"qtest: '{text[:60]}' was answered by {words}")
            if words[0] == "OK":
                return words[1:]

    def write(self, address, data):
        """Writes guest memory."""
        chunk = 64 * 1024
        for at in range(0, len(data), chunk):
            part = data[at:at + chunk]
            self.command(f"b64write {address + at:#x} {len(part):#x} {base64.b64encode(part).decode('ascii')}")

    def _fw_cfg_file(self, wanted):
        """The selector of a file in fw_cfg."""
        self.command(f"outw {_FW_CFG_SELECTOR:#x} {_FW_CFG_DIRECTORY:#x}")

        def read(count):
            return bytes(int(self.command(f"inb {_FW_CFG_DATA:#x}")[0], 16) for _ in range(count))

        (count,) = struct.unpack(">I", read(4))
        for _ in range(count):
            _, selector, name = struct.unpack(">IHxx56s", read(64))
            if name.rstrip(b"\0").decode("ascii") == wanted:
                return selector
        raise Failure(f"fw_cfg has no file {wanted}")

    def set_ramfb(self, width, height, stride):
        """Does what a firmware does to show a framebuffer of XRGB8888."""
        selector = self._fw_cfg_file("etc/ramfb")
        fourcc = int.from_bytes(b"XR24", "little")
        config = struct.pack(">QIIIII", FRAMEBUFFER, fourcc, 0, width, height, stride)
        access = struct.pack(">IIQ", selector << 16 | _DMA_SELECT_AND_WRITE, len(config), _DMA_ADDRESS + 16)
        self.write(_DMA_ADDRESS, access + config)
        # The second half triggers it. Both are big endian, in a port that is not.
        self.command(f"outl {_FW_CFG_DMA:#x} 0x0")
        self.command(f"outl {_FW_CFG_DMA + 4:#x} {int.from_bytes(_DMA_ADDRESS.to_bytes(4, 'big'), 'little'):#x}")
