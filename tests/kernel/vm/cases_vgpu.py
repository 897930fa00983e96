"""The project's own vGPU in a process, where /dev/udmabuf makes real dma-bufs of its memory."""

import json
import os
import socket

from harness import case, wait_for
from pictures import Picture
from qemu import PATIENCE_S

EGL = "egl-headless"


class Vgpu:
    """A vGPU process and its control socket."""

    def __init__(self, test, personality):
        self.program, self.directory = test.config["vgpu"], test.directory
        run = os.environ["TMPDIR"]
        self.socket, self.control = f"{run}/vgpu", f"{run}/vgpu-control"
        test.spawn([self.program, "serve", "--socket", self.socket, "--control", self.control,
                    "--personality", personality, "--mappable"])  # fmt: skip
        self.connection = wait_for("the vGPU listens", self.connect)
        self.answers = self.connection.makefile("r", encoding="utf-8")

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        try:
            connection.connect(self.control)
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        return connection

    def ctl(self, command):
        """Runs a command of the control socket."""
        # `vgpu ctl` would do the same, but under emulation a program's start is the larger part.
        self.connection.sendall(command.encode() + b"\n")
        answer = self.answers.readline()
        if answer.split()[:1] != ["ok"]:
            raise RuntimeError(f"vgpu: '{command}' was answered by '{answer.strip()}'")

    def screenshot(self):
        """What the vGPU itself believes to be on screen."""
        path = os.path.join(os.environ["TMPDIR"], "vgpu.png")
        self.ctl(f"screenshot {path}")
        with open(path, "rb") as file:
            return Picture.from_png(file.read())

    def device(self):
        return json.dumps(
            {
                "driver": "vfio-user-pci",
                "id": "vgpu0",
                "display": "on",
                "socket": {"type": "unix", "path": self.socket},
                # A VM under emulation is slow, and its devices are not silent for it.
                "x-gfx-timeout": 5000,
            }
        )


def udmabufs(test, personality, display):
    test.check(os.path.exists("/dev/udmabuf"), "the kernel has no /dev/udmabuf")
    vgpu = Vgpu(test, personality)
    qemu = test.qemu([vgpu.device()], display=display)
    for number, size in enumerate(("320x240", "256x192")):
        vgpu.ctl(f"mode {size} buffers=3")
        for buffer in range(3):
            vgpu.ctl(f"flip {buffer}")
            vgpu.ctl(f"pattern noise seed={3 * number + buffer}")
            test.shows(qemu, vgpu.screenshot(), f"buffer {buffer} at {size}")
    vgpu.ctl("rect 10,20,64x48 ff8000")
    test.shows(qemu, vgpu.screenshot(), "drawn in place")
    test.check(qemu.dma_bufs("udmabuf"), "QEMU holds no real dma-buf")
    test.equal(qemu.messages(), [], "what QEMU said")


@case("udmabufs of a vGPU like mbochs, without OpenGL", driver=None, stock="no surface")
def vgpu_mbochs(test):
    udmabufs(test, "mbochs", "none")


@case("udmabufs of a vGPU like mbochs, with OpenGL", driver=None, stock="no surface")
def vgpu_mbochs_egl(test):
    udmabufs(test, "mbochs", EGL)


@case("udmabufs of a vGPU like gvt, with OpenGL", driver=None, stock="no surface")
def vgpu_gvt_egl(test):
    udmabufs(test, "gvt", EGL)
