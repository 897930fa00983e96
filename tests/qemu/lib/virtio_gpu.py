"""A minimal guest driver of QEMU's virtio-gpu, through qtest."""

import struct

from .case import Failure, until

SLOT = 16

# Messages of virglrenderer, and of Mesa, while virglrenderer probes.
CHATTER = "gl_version ", " in glTexImage2D(", " in glTexStorage2DMultisample("

# Addresses in guest memory, and of the device's registers, since there is no firmware.
_QUEUE, _REQUEST, _RESPONSE, _PIXELS = 0x100000, 0x110000, 0x111000, 0x200000
_REGISTERS = 0xE0000000
_QUEUE_SIZE = 16
# The longest answer: a header and sixteen monitors.
_ROOM = 24 + 16 * 24
# Maximum number of pending commands, each with two descriptors, and the room for each.
_COMMANDS, _COMMAND_ROOM = _QUEUE_SIZE // 2, 0x200

_VENDOR_CAPABILITY, _COMMON, _NOTIFY = 9, 1, 2
_ACKNOWLEDGE, _DRIVER, _DRIVER_OK, _FEATURES_OK = 1, 2, 4, 8
_VIRGL, _BLOB, _VERSION_1 = 1 << 0, 1 << 3, 1 << 0

_DISPLAY_INFO = 0x100
_CREATE_2D, _UNREF, _SET_SCANOUT, _FLUSH, _TRANSFER, _ATTACH_BACKING = 0x101, 0x102, 0x103, 0x104, 0x105, 0x106
_FENCE = 1 << 0
_CREATE_BLOB, _SET_SCANOUT_BLOB, _GUEST_MEMORY = 0x10C, 0x10D, 1
_OK, _OK_DISPLAY_INFO = 0x1100, 0x1101
_B8G8R8X8 = 2


def device(kind="virtio-gpu-gl-pci", **properties):
    """Returns the arguments of -device."""
    return {"driver": kind, "id": "virtio", "addr": f"{SLOT:x}", **properties}


class VirtioGpu:
    """The driver of the device in the slot SLOT."""

    def __init__(self, qtest):
        self._qtest = qtest
        self._submitted = 0
        self._resource = 0
        self._size = 0, 0
        self._is_blob = False
        self._write_config(0x04, self._read_config(0x04) & 0xFFFF | 0x6)
        self._find_registers()
        self._start()

    def _read_config(self, offset):
        return self._qtest.read_config(SLOT, offset)

    def _write_config(self, offset, value):
        self._qtest.write_config(SLOT, offset, value)

    def _find_registers(self):
        places = {}
        at = self._read_config(0x34) & 0xFF
        while at:
            if self._read_config(at) & 0xFF == _VENDOR_CAPABILITY:
                kind, bar = self._read_config(at + 3) & 0xFF, self._read_config(at + 4) & 0xFF
                places.setdefault(kind, (bar, self._read_config(at + 8), self._read_config(at + 16)))
            at = self._read_config(at + 1) & 0xFF
        if _COMMON not in places or places[_COMMON][0] != places[_NOTIFY][0]:
            raise Failure(f"virtio: these capabilities were not expected: {places}")
        bar = 0x10 + 4 * places[_COMMON][0]
        self._write_config(bar, _REGISTERS)
        self._write_config(bar + 4, 0)
        self._common = _REGISTERS + places[_COMMON][1]
        self._notify = _REGISTERS + places[_NOTIFY][1]

    def _set(self, width, offset, value):
        self._qtest.command(f"write{width} {self._common + offset:#x} {value:#x}")

    def _start(self):
        self._set("b", 0x14, 0)
        self._set("b", 0x14, _ACKNOWLEDGE | _DRIVER)
        self._set("l", 0x00, 0)
        offered = int(self._qtest.command(f"readl {self._common + 4:#x}")[0], 0)
        for half, features in enumerate((offered & (_VIRGL | _BLOB), _VERSION_1)):
            self._set("l", 0x08, half)
            self._set("l", 0x0C, features)
        self._set("b", 0x14, _ACKNOWLEDGE | _DRIVER | _FEATURES_OK)
        self._qtest.write(_QUEUE, bytes(0x3000))
        self._set("w", 0x16, 0)
        self._set("w", 0x18, _QUEUE_SIZE)
        for offset, address in (0x20, _QUEUE), (0x28, _QUEUE + 0x1000), (0x30, _QUEUE + 0x2000):
            self._set("l", offset, address)
            self._set("l", offset + 4, 0)
        self._set("w", 0x1C, 1)
        self._set("b", 0x14, _ACKNOWLEDGE | _DRIVER | _FEATURES_OK | _DRIVER_OK)

    def _submit(self, kind, body, flags=0):
        """Sends a command without waiting. There is room for a limited number of pending ones."""
        request = struct.pack("<IIQII", kind, flags, self._submitted, 0, 0) + body
        slot = self._submitted % _COMMANDS
        place, response = _REQUEST + _COMMAND_ROOM * slot, _RESPONSE + _COMMAND_ROOM * slot
        self._qtest.write(place, request)
        self._qtest.write(response, bytes(_ROOM))
        # Two descriptors: what the device reads, and what it writes.
        descriptors = struct.pack("<QIHHQIHH", place, len(request), 1, 2 * slot + 1, response, _ROOM, 2, 0)
        self._qtest.write(_QUEUE + 32 * slot, descriptors)
        self._qtest.write(_QUEUE + 0x1000 + 4 + 2 * (self._submitted % _QUEUE_SIZE), struct.pack("<H", 2 * slot))
        self._submitted += 1
        self._qtest.write(_QUEUE + 0x1000, struct.pack("<HH", 0, self._submitted))
        self._qtest.command(f"writew {self._notify:#x} 0")

    def is_idle(self):
        """Returns whether the device has done all that it was sent."""
        return int(self._qtest.command(f"readw {_QUEUE + 0x2002:#x}")[0], 0) == self._submitted

    def wait(self):
        """Waits until the device has done all that it was sent."""
        until("virtio-gpu answers", self.is_idle)
        answer = self._answer(0)
        if answer not in (_OK, _OK_DISPLAY_INFO):
            raise Failure(f"virtio-gpu answered {answer:#x}")

    def _answer(self, offset):
        last = _RESPONSE + _COMMAND_ROOM * ((self._submitted - 1) % _COMMANDS)
        return int(self._qtest.command(f"readl {last + offset:#x}")[0], 0)

    def monitor(self):
        """Returns whether the guest's first monitor is on, and its size."""
        self._do(_DISPLAY_INFO, "")
        return self._answer(24 + 16), self._answer(24 + 8), self._answer(24 + 12)

    def _do(self, kind, form, *values):
        self._submit(kind, struct.pack(form, *values))
        self.wait()

    def set_mode(self, width, height, keep=False):
        """Scans out a new framebuffer, and returns its number; the one before goes unless it is to be kept."""
        old, self._resource = self._resource, self._resource + 1
        self._size = width, height
        self._is_blob = False
        self._do(_CREATE_2D, "<IIII", self._resource, _B8G8R8X8, width, height)
        self._do(_ATTACH_BACKING, "<IIQII", self._resource, 1, _PIXELS, 4 * width * height, 0)
        self._do(_SET_SCANOUT, "<IIIIII", 0, 0, width, height, 0, self._resource)
        if old and not keep:
            self._do(_UNREF, "<II", old, 0)
        return self._resource

    def switch_off(self):
        """Has the first monitor show nothing."""
        self._do(_SET_SCANOUT, "<IIIIII", 0, 0, 0, 0, 0, 0)

    def scan_out(self, resource):
        """Scans out another framebuffer of the same size that is there."""
        self._resource = resource
        self._do(_SET_SCANOUT, "<IIIIII", 0, 0, *self._size, 0, resource)

    def set_blob(self, picture):
        """Scans out a blob of guest memory with this picture, which QEMU has as a dma-buf."""
        old, self._resource = self._resource, self._resource + 1
        width, height = self._size = picture.size
        self._is_blob = True
        size = 4 * width * height
        self._qtest.write(_PIXELS, picture.tobytes("raw", "BGRX"))
        self._do(_CREATE_BLOB, "<IIIIQQQII", self._resource, _GUEST_MEMORY, 0, 1, 0, size, _PIXELS, size, 0)
        self._do(_SET_SCANOUT_BLOB, "<IIIIIIIIII4I4I", 0, 0, width, height, 0, self._resource, width, height, _B8G8R8X8, 0,
                 4 * width, 0, 0, 0, 0, 0, 0, 0)
        if old:
            self._do(_UNREF, "<II", old, 0)

    def draw(self, picture):
        """Draws a picture of the framebuffer's size, without showing it."""
        self._qtest.write(_PIXELS, picture.tobytes("raw", "BGRX"))
        self._do(_TRANSFER, "<IIIIQII", 0, 0, *self._size, 0, self._resource, 0)

    def show(self, picture):
        """Sets a mode of the picture's size, draws it, and shows it."""
        self.set_mode(*picture.size)
        self.draw(picture)
        self.flush()

    def submit_flush(self):
        """Asks the device to show what was drawn; wait() waits for that."""
        # Without a fence, a blob is shown again and again.
        self._submit(_FLUSH, struct.pack("<IIIIII", 0, 0, *self._size, self._resource, 0), _FENCE if self._is_blob else 0)

    def flush(self):
        """Shows what was drawn."""
        self.submit_flush()
        self.wait()
