"""A guest without a CPU: its memory, I/O ports and ramfb, through QEMU's qtest protocol."""

import base64
import os
import socket

from . import fw_cfg
from .case import SCRATCH, Failure, until


class Qtest:
    """Arguments for QEMU, and the connection once it runs."""

    def __init__(self, name="qtest"):
        self._path = os.path.join(SCRATCH, name)
        self.arguments = ["-qtest", f"unix:{self._path},server=on,wait=off", "-qtest-log", "none"]
        self._socket = self._lines = None

    def connect(self, seconds=30):
        """Connects to the QEMU that has the arguments, and gives it so long for an answer."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(seconds)

        def connected():
            try:
                self._socket.connect(self._path)
            except OSError:
                return False
            return True

        until("QEMU's qtest socket", connected)
        self._lines = self._socket.makefile("r", encoding="ascii")

    def command(self, text):
        """Runs a command, and returns its answer, split into words."""
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

    def read_config(self, slot, offset):
        """Returns the 32 bits, or as many as there are up to the next multiple of four, of a PCI device's configuration space."""
        self._choose_config(slot, offset & ~3)
        return int(self.command("inl 0xcfc")[0], 0) >> 8 * (offset & 3)

    def write_config(self, slot, offset, value):
        """Writes 32 bits of a PCI device's configuration space."""
        self._choose_config(slot, offset)
        self.command(f"outl 0xcfc {value:#x}")

    def _choose_config(self, slot, offset):
        self.command(f"outl 0xcf8 {0x80000000 | slot << 11 | offset:#x}")

    def set_ramfb(self, width, height, stride):
        """Shows a framebuffer of XRGB8888 at fw_cfg.FRAMEBUFFER, as a firmware does."""
        if not fw_cfg.set_ramfb(self.command, self.write, width, height, stride):
            raise Failure("fw_cfg has no file for ramfb")
