"""A vfio device's memory, mapped directly.

Under KVM, the guest's CPU writes to the same pages. QEMU's emulation, itself emulated here, would
write 8 bytes at a time.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import struct

from processes import open_files

SYS_PIDFD_GETFD = 438
VFIO_DEVICE_GET_REGION_INFO = 0x3B6C
# struct vfio_region_info: argsz, flags, index, cap_offset, size, offset.
REGION_INFO = struct.Struct("=IIIIQQ")
BAR0_REGION, BAR2_REGION, CONFIG_REGION = 0, 2, 7
BASE_ADDRESS_0 = 0x10

libc = ctypes.CDLL(None, use_errno=True)


def duplicate(pid, fd):
    """Returns a new descriptor for a file that another process has open."""
    process = os.pidfd_open(pid)
    try:
        copy = libc.syscall(SYS_PIDFD_GETFD, process, int(fd), 0)
    finally:
        os.close(process)
    if copy < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"pidfd_getfd of descriptor {fd} of process {pid}: {os.strerror(error)}")
    return copy


def region(device, index):
    """Returns where a region is in the device's file, and how large it is."""
    info = bytearray(REGION_INFO.pack(REGION_INFO.size, 0, index, 0, 0, 0))
    fcntl.ioctl(device, VFIO_DEVICE_GET_REGION_INFO, info)
    size, offset = REGION_INFO.unpack(info)[4:]
    return offset, size


@contextlib.contextmanager
def device(pid, is_it):
    """Returns the vfio device that this process has open and that is_it() accepts.

    Nothing is held afterwards: an open descriptor of ours would keep the device.
    """
    for fd in open_files(pid, "vfio-device"):
        copy = duplicate(pid, fd)
        try:
            if is_it(copy):
                yield copy
                return
        finally:
            os.close(copy)
    raise RuntimeError(f"process {pid} has no such vfio device open")


def write_memory(fd, offset, data):
    """Writes into BAR 0 of a device."""
    start, _ = region(fd, BAR0_REGION)
    with mmap.mmap(fd, offset + len(data), offset=start) as memory:
        memory[offset : offset + len(data)] = data


def write(qemu, address, offset, data):
    """Writes into BAR 0 of the device that the guest has placed at this address."""

    def is_there(fd):
        config = os.pread(fd, 4, region(fd, CONFIG_REGION)[0] + BASE_ADDRESS_0)
        return int.from_bytes(config, "little") & ~0xF == address

    with device(qemu.process.pid, is_there) as fd:
        write_memory(fd, offset, data)
