"""A vGPU in a process of its own, driven through its control socket."""

import json
import os
import select
import signal
import socket

from . import processes
from .case import SCRATCH, VGPU, Failure, debug, filtered, output_file, say, until


class VgpuError(Exception):
    """The vGPU refused a command."""


class Vgpu:
    """`vgpu serve`, for a `with` block.

    `mappable`: the dma-bufs of a gvt are such that the CPU can map them, which stands in for a GPU here. GVT-g's cannot be mapped.
    """

    def __init__(self, personality="mbochs", *options, name="vgpu0", mappable=True):
        self.name, self.personality = name, personality
        self.socket = os.path.join(SCRATCH, name)
        self._control = os.path.join(SCRATCH, f"{name}.control")
        self._log = output_file(f"{name}.log")
        ready, write_end = os.pipe()
        command = [VGPU, "serve", "--socket", self.socket, "--control", self._control, "--personality", personality,
                   "--ready-fd", str(write_end), *(["--mappable"] if mappable else []), *options]
        with open(self._log, "ab") as log:
            self._told = log.tell()
            self.process = processes.start(
                command, stdout=log, stderr=log, pass_fds=[write_end])
        os.close(write_end)
        readable, _, _ = select.select([ready], [], [], 30)
        line = os.read(ready, 100) if readable else b""
        os.close(ready)
        if not line:
            self.process.kill()
            self.process.wait()
            raise Failure(f"{name} did not start: {self._text()}")
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(60)
        self._connection.connect(self._control)
        self._answers = self._connection.makefile("r", encoding="utf-8")

    def _text(self):
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self._answers.close()
        self._connection.close()
        was_running = self.process.poll() is None
        if was_running:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        if kind is None and was_running:
            for line in self._text()[self._told:].splitlines():
                if not line.startswith("vgpu: listening"):
                    say(f"{self.name} said: {line}")
            if self.process.returncode != 0:
                raise Failure(f"{self.name} {processes.exit_text(self.process.returncode)}")

    def ask(self, command):
        """Runs a command of the control socket and returns its answer."""
        debug(f"{self.name} <- {command}")
        self._connection.sendall(command.encode() + b"\n")
        line = self._answers.readline()
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "ok":
            return json.loads(rest) if rest else None
        if word == "error":
            raise VgpuError(filtered(rest))
        raise Failure(f"{self.name}: '{command}' was answered by '{line}'")

    def stats(self):
        """Returns counters of what clients asked so far."""
        return self.ask("stats")

    def state(self):
        """Returns what is on screen."""
        return self.ask("state")

    def screenshot(self, path, cursor=True):
        """Writes the picture that the vGPU itself has on screen."""
        self.ask(f"screenshot {'' if cursor else 'no-cursor '}{path}")

    def show(self, mode, pattern, seed=0):
        """Sets a mode and draws into all of its buffers."""
        self.ask(f"mode {mode}")
        for buffer in range(self.state()["buffers"]):
            self.ask(f"pattern {pattern} seed={seed + buffer} buffer={buffer}")

    def flip_fast(self):
        """Flips faster than anybody looks, until it is told to stop."""
        self.ask("run flips=1000000 rate=300 draw=line")

    def wait_link(self):
        """Waits until the guest was told about its monitor, which must not disturb the test later."""
        if self.stats().get("link_state"):
            until("the link to the monitor", lambda: self.ask("edid")["link_state"] == "up")

    def kill(self):
        """Ends the process like a crash."""
        self.process.kill()
        self.process.wait()


def flip_until_seen(*vgpus):
    """Has vGPUs flip fast, until QEMU has seen many of their pictures."""
    before = [vgpu.stats()["queries"] for vgpu in vgpus]
    for vgpu in vgpus:
        vgpu.flip_fast()
    for vgpu, count in zip(vgpus, before):
        until("QEMU sees the flips", lambda vgpu=vgpu, count=count: vgpu.stats()["queries"] > count + 20)
