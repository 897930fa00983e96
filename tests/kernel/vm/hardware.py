"""The guest's side of the kernel's sample vGPUs."""

import os

import device_memory
from pictures import Picture, noise
from qemu import PciDevice

# Above the guest's memory, below the firmware.
BARS = 0xE0000000


class Mbochs(PciDevice):
    """mbochs: video memory in BAR 0, Bochs' dispi registers in BAR 2."""

    XRES, YRES, BPP, ENABLE, BANK, VIRT_WIDTH, VIRT_HEIGHT, X_OFFSET, Y_OFFSET = range(1, 10)

    def __init__(self, qemu, slot, number=0):
        super().__init__(qemu, slot)
        self.vram = BARS + 0x0800_0000 * number
        self.mmio = self.vram + 0x0400_0000
        self.memory = self.place_bar(0, self.vram)
        self.place_bar(2, self.mmio)
        self.enable()

    def register(self, index, value=None):
        address = self.mmio + 0x500 + 2 * index
        if value is None:
            return int(self.qemu.qtest(f"readw {address:#x}")[0], 16)
        self.qemu.qtest(f"writew {address:#x} {value:#x}")
        return value

    def mode(self, width, height, virtual_width=0, x=0, y=0, bpp=32):
        self.register(self.ENABLE, 0)
        self.register(self.XRES, width)
        self.register(self.YRES, height)
        self.register(self.BPP, bpp)
        self.register(self.VIRT_WIDTH, virtual_width)
        self.pan(x, y)
        self.register(self.ENABLE, 0x41)

    def pan(self, x, y):
        self.register(self.X_OFFSET, x)
        self.register(self.Y_OFFSET, y)

    def off(self):
        self.register(self.ENABLE, 0)

    def edid(self, size=256):
        """Returns the EDID block as the guest sees it; zeros while the link is down."""
        return self.qemu.read(self.mmio, size)

    def draw(self, seed, width, height, stride=None, offset=0):
        """Fills the frame with noise through BAR 0, and returns the picture that must be shown."""
        stride = stride or width * 4
        data = noise(seed, stride * height)
        device_memory.write(self.qemu, self.vram, offset, data)
        return Picture.from_xrgb(width, height, data, stride)

    def fill(self, width, height):
        """Fills the frame with white."""
        device_memory.write(self.qemu, self.vram, 0, b"\xff" * (4 * width * height))

    def flip(self, seed, width, height):
        """Draws below the first frame, flips to it, and returns the picture."""
        want = self.draw(seed, width, height, offset=4 * width * height)
        self.pan(0, height)
        return want


class UnattendedMbochs:
    """The only mbochs of a QEMU whose guest does not run, so that its BARs have no address."""

    def __init__(self, pid):
        self.pid = pid

    def device(self):
        return device_memory.device(self.pid, lambda _: True)

    def mode(self, width, height):
        settings = ((Mbochs.ENABLE, 0), (Mbochs.XRES, width), (Mbochs.YRES, height), (Mbochs.BPP, 32), (Mbochs.ENABLE, 0x41))
        with self.device() as fd:
            registers, _ = device_memory.region(fd, device_memory.BAR2_REGION)
            for index, value in settings:
                os.pwrite(fd, value.to_bytes(2, "little"), registers + 0x500 + 2 * index)

    def draw(self, seed, width, height):
        data = noise(seed, width * height * 4)
        with self.device() as fd:
            device_memory.write_memory(fd, 0, data)
        return Picture.from_xrgb(width, height, data)


class Mdpy(PciDevice):
    """mdpy: a framebuffer in BAR 0, with the fixed geometry that a vendor capability says."""

    def __init__(self, qemu, slot):
        super().__init__(qemu, slot)
        self.vram = BARS
        self.memory = self.place_bar(0, self.vram)
        self.enable()
        self.fourcc, self.width, self.height = (
            self.config_read(offset) for offset in (0x44, 0x48, 0x4C)
        )

    def fill(self):
        """Fills the frame with white."""
        device_memory.write(self.qemu, self.vram, 0, b"\xff" * (4 * self.width * self.height))

    def draw(self, seed):
        data = noise(seed, self.width * self.height * 4)
        device_memory.write(self.qemu, self.vram, 0, data)
        return Picture.from_xrgb(self.width, self.height, data)
