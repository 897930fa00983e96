"""A file system in a process, which answers one process only.

The messages are those of linux/fuse.h. Needs root and /dev/fuse.
"""

import ctypes
import os
import struct
import sys
import tempfile

_ROOT, _FILE = 1, 2
_NAMES = {1: "lookup", 3: "getattr", 14: "open", 15: "read", 17: "statfs", 18: "release", 25: "flush", 26: "init", 46: "lseek"}
_FOREVER = 1 << 31


class SilentFile:
    """The process `friend` can open `path`; requests of other processes are never answered."""

    def __init__(self, friend):
        from . import processes
        from .case import SCRATCH, Failure, output_file, until

        self._mountpoint = tempfile.mkdtemp(dir=SCRATCH)
        self.path = os.path.join(self._mountpoint, "file")
        self._log = output_file("fuse.log")
        with open(self._log, "wb") as log:
            self._process = processes.start([sys.executable, __file__, self._mountpoint, str(friend)], stdout=log, stderr=log)

        def mounted():
            if self._process.poll() is not None:
                raise Failure(f"fuse: {' '.join(self._lines())}")
            return "mounted" in self._lines()

        until("the file system", mounted)

    def _lines(self):
        with open(self._log, encoding="utf-8") as file:
            return file.read().splitlines()

    def unanswered(self):
        """Returns the requests of others."""
        return [line for line in self._lines() if line in _NAMES.values()]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Processes that wait get an error then.
        self._process.kill()
        self._process.wait()
        _umount(self._mountpoint)


def available():
    """Returns whether this machine allows it."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


def _umount(mountpoint):
    detach = 2
    ctypes.CDLL(None).umount2(mountpoint.encode(), detach)


def _attributes(node):
    directory = node == _ROOT
    mode, links = (0o40755, 2) if directory else (0o100644, 1)
    size = 0 if directory else 64 << 20
    return struct.pack("<6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)


def _serve(mountpoint, friend):
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"silent", mountpoint.encode(), b"fuse", 0, options) != 0:
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    print("mounted", flush=True)
    answers = {
        "init": lambda node: struct.pack("<4I2H2I2H8I", 7, 31, 65536, 0, 12, 8, 65536, 1, 0, 0, *[0] * 8),
        "lookup": lambda node: struct.pack("<4Q2I", _FILE, 1, _FOREVER, _FOREVER, 0, 0) + _attributes(_FILE),
        "getattr": lambda node: struct.pack("<Q2I", _FOREVER, 0, 0) + _attributes(node),
        "open": lambda node: struct.pack("<Q2I", 1, 0, 0),
        "flush": lambda node: b"",
        "release": lambda node: b"",
    }
    while True:
        message = os.read(device, 1 << 20)
        _, operation, unique, node, _, _, thread, _ = struct.unpack("<2I2Q4I", message[:40])
        name = _NAMES.get(operation, f"operation {operation}")
        # The kernel's own requests have no process id.
        if thread != 0 and name != "init" and not os.path.exists(f"/proc/{friend}/task/{thread}"):
            print(name, flush=True)
        elif name in answers:
            data = answers[name](node)
            os.write(device, struct.pack("<IiQ", 16 + len(data), 0, unique) + data)
        elif operation not in (2, 42):  # FORGET and BATCH_FORGET want no answer
            no_such_call = -38
            os.write(device, struct.pack("<IiQ", 16, no_such_call, unique))


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
