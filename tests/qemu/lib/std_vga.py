"""A minimal guest driver of QEMU's standard VGA, through qtest."""

SLOT = 17

# Addresses for its memory and registers, since there is no firmware to choose them.
_MEMORY, _REGISTERS = 0xE8000000, 0xEA000000
_DISPI = 0x500
_XRES, _YRES, _BPP, _ENABLE = 1, 2, 3, 4
_ENABLED_LINEAR = 0x41


def device():
    """Returns the arguments of -device."""
    return {"driver": "VGA", "id": "std", "addr": f"{SLOT:x}"}


class StdVga:
    """The driver of the device in the slot SLOT."""

    def __init__(self, qtest):
        self._qtest = qtest
        for offset, value in (0x10, _MEMORY), (0x18, _REGISTERS), (0x04, 0x3):
            qtest.write_config(SLOT, offset, value)
        # The screen is blank until the attribute controller enables it.
        qtest.command("inb 0x3da")
        qtest.command("outb 0x3c0 0x20")

    def set_mode(self, width, height):
        """Sets a mode of 32 bits per pixel."""
        for index, value in (_ENABLE, 0), (_XRES, width), (_YRES, height), (_BPP, 32), (_ENABLE, _ENABLED_LINEAR):
            self._qtest.command(f"writew {_REGISTERS + _DISPI + 2 * index:#x} {value:#x}")

    def draw(self, picture):
        """Draws a picture of the mode's size."""
        self._qtest.write(_MEMORY, picture.tobytes("raw", "BGRX"))

    def show(self, picture):
        """Sets a mode of the picture's size, and draws it, which shows it."""
        self.set_mode(*picture.size)
        self.draw(picture)
