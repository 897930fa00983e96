"""QEMU's monitor protocol (QMP), as little of it as the scripts need."""

import json
import socket
import time


class QmpError(Exception):
    """QEMU refused a command, or is not there any more."""


class Qmp:
    """A connection to the monitor at a UNIX socket."""

    def __init__(self, path, timeout=30.0, alive=lambda: True):
        """Connects as soon as QEMU listens; gives up when alive() turns false."""
        deadline = time.monotonic() + timeout
        self._socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self._socket.connect(path)
                break
            except OSError as error:
                if not alive() or time.monotonic() > deadline:
                    self._socket.close()
                    raise QmpError(f"no monitor at {path}: {error}") from error
                time.sleep(0.05)
        self._socket.settimeout(timeout)
        self._lines = self._socket.makefile("r", encoding="utf-8")
        self._receive()
        self.command("qmp_capabilities")

    def _receive(self):
        try:
            line = self._lines.readline()
        except OSError as error:
            raise QmpError(f"QEMU's monitor does not answer: {error}") from error
        if not line:
            raise QmpError("QEMU closed its monitor")
        return json.loads(line)

    def command(self, name, **arguments):
        """Runs a command and returns its result; events that come in between are dropped."""
        message = json.dumps({"execute": name, "arguments": arguments}) + "\n"
        try:
            self._socket.sendall(message.encode())
        except OSError as error:
            raise QmpError(f"{name}: QEMU's monitor is gone: {error}") from error
        while True:
            reply = self._receive()
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                raise QmpError(f"{name}: {reply['error']['desc']}")

    def close(self):
        """Ends the connection; QEMU goes on."""
        self._lines.close()
        self._socket.close()
