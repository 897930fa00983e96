"""Hostile vfio-user devices, which send descriptors whose close() blocks where nobody expects them."""

import os
import select
import socket
import struct
import threading

from .case import SCRATCH

_HEADER = struct.Struct("=HHIII")
_REPLY = 1
_JUNK = b"\xff" * _HEADER.size
_HOUR = 3600


class Lingering:
    """Descriptors whose closing waits until the `with` block ends, if QEMU is the last to close them."""

    def __init__(self):
        self._theirs = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for end in self._theirs:
            end.close()

    def make(self):
        """Returns a socket with unsent data, which nobody reads."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            self._theirs.append(listener.accept()[0])
        ours.setblocking(False)
        try:
            while True:
                ours.send(bytes(4096))
        except BlockingIOError:
            pass
        ours.setblocking(True)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, _HOUR))
        return ours

    def send(self, connection, before, count=1):
        """Sends bytes, and such a descriptor with them as the last of so many."""
        last = self.make()
        with open(os.devnull, "rb") as file:
            socket.send_fds(connection, [before], [*[file.fileno()] * (count - 1), last.fileno()])
        # It is on its way to QEMU, so this is not the last close().
        last.close()


def with_payload(connection, lingering, request):
    """Answers, and sends one with the payload."""
    number, command, *_ = request
    connection.sendall(_HEADER.pack(number, command, _HEADER.size + 8, _REPLY, 0))
    lingering.send(connection, bytes(8))


def with_many(connection, lingering, request):
    """Answers with more of them than QEMU's sockets expect."""
    number, command, *_ = request
    lingering.send(connection, _HEADER.pack(number, command, _HEADER.size, _REPLY, 0), 20)


def _listen(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


class Device:
    """Answers QEMU's first message in one of these ways, and then hangs up; for a `with` block."""

    def __init__(self, answer, lingering, name="hostile"):
        self.name, self.socket = name, os.path.join(SCRATCH, name)
        self._answer, self._lingering = answer, lingering
        self._listener = _listen(self.socket)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.close()
        os.unlink(self.socket)

    def _serve(self):
        with self._listener.accept()[0] as connection:
            header = _HEADER.unpack(connection.recv(_HEADER.size, socket.MSG_WAITALL))
            connection.recv(header[2] - _HEADER.size, socket.MSG_WAITALL)
            self._answer(connection, self._lingering, header)


class Relay:
    """Is between QEMU and a vGPU, for a `with` block."""

    def __init__(self, vgpu):
        self.name, self.socket = vgpu.name, f"{vgpu.socket}.relay"
        self._listener = _listen(self.socket)
        self._vgpu = socket.socket(socket.AF_UNIX)
        self._vgpu.connect(vgpu.socket)
        self._qemu = None
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()
        self._vgpu.close()
        os.unlink(self.socket)

    def _serve(self):
        self._qemu = self._listener.accept()[0]
        while True:
            for source in select.select([self._qemu, self._vgpu], [], [])[0]:
                with self._lock:
                    data, fds, _, _ = socket.recv_fds(source, 1 << 16, 16)
                    if not data:
                        return
                    other = self._vgpu if source is self._qemu else self._qemu
                    socket.send_fds(other, [data], fds)
                for fd in fds:
                    os.close(fd)

    def end_badly(self, lingering):
        """Sends what is no message, and a descriptor that QEMU does not read any more."""
        with self._lock:
            self._qemu.sendall(_JUNK)
            lingering.send(self._qemu, b"\0")
