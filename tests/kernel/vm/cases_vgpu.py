"""The project's own vGPU in a process, with real dma-bufs from /dev/udmabuf."""

import json
import os
import socket

from front_ends import IMPORTED, display_tests
from harness import case, wait_for
from pictures import Picture
from qemu import PATIENCE_S

EGL = "egl-headless"
SLOT = 4


class Vgpu:
    """A vGPU process and its control socket."""

    name = "vgpu0"

    def __init__(self, test, command):
        self.socket, self.control = (command[command.index(option) + 1] for option in ("--socket", "--control"))
        test.spawn(command)
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
        # `vgpu ctl` does the same, but under emulation starting a program takes most of the time.
        self.connection.sendall(command.encode() + b"\n")
        answer = self.answers.readline()
        if answer.split()[:1] != ["ok"]:
            raise RuntimeError(f"vgpu: '{command}' was answered by '{answer.strip()}'")

    def screenshot_file(self):
        """Writes the picture that the vGPU itself has on screen, and returns the file's path."""
        path = os.path.join(os.environ["TMPDIR"], "vgpu.png")
        self.ctl(f"screenshot {path}")
        return path

    def screenshot(self):
        """Returns that picture."""
        with open(self.screenshot_file(), "rb") as file:
            return Picture.from_png(file.read())

    # The guest driver's part, with the interface of Mbochs.

    def mode(self, width, height):
        self.ctl(f"mode {width}x{height} buffers=2")
        self.ctl("plane on")

    def off(self):
        self.ctl("plane off")

    def fill(self, *_):
        """Fills the frame with white."""
        self.ctl("pattern solid:ffffff")

    def draw(self, seed, *_):
        """Fills the frame with noise, and returns the picture that must be shown."""
        self.ctl(f"pattern noise seed={seed}")
        return self.screenshot()

    def flip(self, seed, *_):
        """Draws another frame, flips to it, and returns the picture."""
        self.ctl(f"pattern noise seed={seed} buffer=1")
        self.ctl("flip 1")
        return self.screenshot()


def start(test, personality, display="none", extra=(), environment=None, **properties):
    """QEMU with a vGPU in a process. Without vfio-user, it is a device of the kernel."""
    test.check(os.path.exists("/dev/udmabuf"), "the kernel has no /dev/udmabuf")
    run = os.environ["TMPDIR"]
    vgpu = Vgpu(test, [test.config["vgpu"], "serve", "--socket", f"{run}/vgpu", "--control", f"{run}/vgpu-control",
                       "--personality", personality, "--mappable"])  # fmt: skip
    device = {"driver": "vfio-user-pci", "id": vgpu.name, "addr": f"{SLOT:#x}", "display": "on",
              "socket": {"type": "unix", "path": vgpu.socket},
              # An emulated VM is slow; its devices must not count as silent.
              "x-gfx-timeout": 5000, **properties}  # fmt: skip
    if not test.config["vfio_user"]:
        kernel_vfio = display_tests(test, "kernel_vfio")
        device, environment = kernel_vfio.device(vgpu, device), kernel_vfio.environment(environment or {})
    qemu = test.qemu([json.dumps(device)], display=display, extra=extra, environment=environment)
    return qemu, vgpu


def udmabufs(test, personality, display, **properties):
    qemu, vgpu = start(test, personality, display, **properties)
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


@case("udmabufs of a vGPU like mbochs, imported", driver=None, stock="no surface")
def vgpu_mbochs_egl(test):
    udmabufs(test, "mbochs", EGL, **IMPORTED)


@case("udmabufs of a vGPU like gvt, imported", driver=None, stock="no surface")
def vgpu_gvt_egl(test):
    udmabufs(test, "gvt", EGL, **IMPORTED)
