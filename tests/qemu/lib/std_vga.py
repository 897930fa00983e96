"""A guest's driver of QEMU's standard VGA, without a guest: through qtest, as much of it as draws pictures."""

SLOT = 17

# Where its memory and its registers are in the address space: no firmware has placed them.
_MEMORY, _REGISTERS = 0xE8000000, 0xEA000000
_DISPI = 0x500
_XRES, _YRES, _BPP, _ENABLE = 1, 2, 3, 4
_ENABLED_LINEAR = 0x41


def device():
    """The arguments of -device."""
    return {"driver": "VGA", "id": "std", "addr": f"{SLOT:x}"}


class StdVga:
    """The driver of the device in our slot."""

    def __init__(self, qtest):
        self._qtest = qtest
        for offset, value in (0x10, _MEMORY), (0x18, _REGISTERS), (0x04, 0x3):
            qtest.command(f"outl 0xcf8 {0x80000000 | SLOT << 11 | offset:#x}")
            qtest.command(f"outl 0xcfc {value:#x}")
        # Blanked until the attribute controller is given to the screen.
        qtest.command("inb 0x3da")
        qtest.command("outb 0x3c0 0x20")

    def set_mode(self, width, height):
        """Shows so much of its memory, of 32 bits a pixel."""
        for index, value in (_ENABLE, 0), (_XRES, width), (_YRES, height), (_BPP, 32), (_ENABLE, _ENABLED_LINEAR):
            self._qtest.command(f"writew {_REGISTERS + _DISPI + 2 * index:#x} {value:#x}")

    def draw(self, picture):
        """Draws a picture of the mode's size."""
        self._qtest.write(_MEMORY, picture.tobytes("raw", "BGRX"))
