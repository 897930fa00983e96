# SPDX-License-Identifier: GPL-2.0-or-later
"""Drives backend.py, which is a process of its own."""

import json
import os
import subprocess
import sys

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "backend.py")

# Options of -device for a backend, besides its chardev. 35 is a watchdog, of which QEMU only knows
# the name.
# In QEMU 10.0 users cannot create this device.
PLAIN_DEVICE, OTHER_DEVICE = "vhost-user-test-device-pci,virtio-id=35", "vhost-user-rng-pci"


def plain_device(binary):
    """Returns the simplest device that this QEMU has for a backend."""
    known = subprocess.run([binary, "-device", "help"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return PLAIN_DEVICE if PLAIN_DEVICE.split(",")[0] in known.stdout else OTHER_DEVICE


class Backend:
    """A backend in its own process, driven over pipes."""

    def __init__(self, path, *options):
        self.path = path
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, path, *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the backend at {self.path} is gone")
        return json.loads(line)

    def do(self, command, **arguments):
        """Runs a command of backend.py."""
        self.process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def kill(self):
        """Kills the process, without telling QEMU."""
        self.process.kill()
        self.process.communicate()

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        if self.process.poll() is None:
            self.kill()
