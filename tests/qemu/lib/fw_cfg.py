"""fw_cfg and ramfb through qtest. Imports nothing of lib, since the kernel's VM uses it, too."""

import struct

_SELECTOR, _DATA, _DMA = 0x510, 0x511, 0x514
_DIRECTORY = 0x19
_DMA_SELECT_AND_WRITE = 0x18
# Somewhere in the guest's 64 MiB.
_DMA_ADDRESS, FRAMEBUFFER = 0x100000, 0x1000000


def _find(command, wanted):
    """Returns the selector of a file, or None."""
    command(f"outw {_SELECTOR:#x} {_DIRECTORY:#x}")

    def read(count):
        return bytes(int(command(f"inb {_DATA:#x}")[0], 16) for _ in range(count))

    (count,) = struct.unpack(">I", read(4))
    for _ in range(count):
        _, selector, name = struct.unpack(">IHxx56s", read(64))
        if name.rstrip(b"\0").decode("ascii") == wanted:
            return selector
    return None


def set_ramfb(command, write, width, height, stride):
    """Shows what is at FRAMEBUFFER, in XRGB8888. Returns False if there is no ramfb.

    command: runs a command of qtest, and returns the words of its answer; write: writes bytes to an address.
    """
    selector = _find(command, "etc/ramfb")
    if selector is None:
        return False
    fourcc = int.from_bytes(b"XR24", "little")
    config = struct.pack(">QIIIII", FRAMEBUFFER, fourcc, 0, width, height, stride)
    access = struct.pack(">IIQ", selector << 16 | _DMA_SELECT_AND_WRITE, len(config), _DMA_ADDRESS + 16)
    write(_DMA_ADDRESS, access + config)
    # Writing the second half starts it. Both are big endian, in a little-endian port.
    command(f"outl {_DMA:#x} 0x0")
    command(f"outl {_DMA + 4:#x} {int.from_bytes(_DMA_ADDRESS.to_bytes(4, 'big'), 'little'):#x}")
    return True
