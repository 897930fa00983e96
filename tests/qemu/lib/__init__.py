"""What the display tests share: a vGPU, a QEMU that shows it, pictures. See ../README.md."""

from .case import KERNEL, Failure, attempt, expect, output_file, say, skip, until
from .pictures import compare, load, same_as_console, same_as_picture, same_as_screen, settled
from .processes import exit_text
from .qemu import Qemu, QmpError
from .vgpu import Vgpu, VgpuError
from .vnc import Vnc

__all__ = [
    "KERNEL", "Failure", "Qemu", "QmpError", "Vgpu", "VgpuError", "Vnc", "attempt", "compare", "exit_text", "expect", "load",
    "output_file", "same_as_console", "same_as_picture", "same_as_screen", "say", "settled", "skip", "until",
]
