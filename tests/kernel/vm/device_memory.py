"""A vfio device's memory, in the pages that the guest's CPU writes to under KVM: past QEMU's emulation, which takes them 8 bytes at
a time and is emulated here itself."""

import ctypes
import fcntl
import mmap
import os
import struct

SYS_PIDFD_GETFD = 438
VFIO_DEVICE_GET_REGION_INFO = 0x3B6C
# struct vfio_region_info: argsz, flags, index, cap_offset, size, offset.
REGION_INFO = struct.Struct("=IIIIQQ")
BAR0_REGION, CONFIG_REGION = 0, 7
BASE_ADDRESS_0 = 0x10

libc = ctypes.CDLL(None, use_errno=True)


def duplicate(pid, fd):
    """A descriptor of our own for what another process has open."""
    process = os.pidfd_open(pid)
    try:
        copy = libc.syscall(SYS_PIDFD_GETFD, process, int(fd), 0)
    finally:
        os.close(process)
    if copy < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"pidfd_getfd of descriptor {fd} of process {pid}: {os.strerror(error)}")
    return copy


def region_offset(device, index):
    info = bytearray(REGION_INFO.pack(REGION_INFO.size, 0, index, 0, 0, 0))
    fcntl.ioctl(device, VFIO_DEVICE_GET_REGION_INFO, info)
    return REGION_INFO.unpack(info)[5]


def write(qemu, address, offset, data):
    """Writes into BAR 0 of the device that QEMU has open and that the guest has placed at this address.

    Nothing is held afterwards: an open descriptor of ours would keep the device.
    """
    for fd in qemu.open_files("vfio-device"):
        device = duplicate(qemu.process.pid, fd)
        try:
            config = os.pread(device, 4, region_offset(device, CONFIG_REGION) + BASE_ADDRESS_0)
            if int.from_bytes(config, "little") & ~0xF != address:
                continue
            start = region_offset(device, BAR0_REGION)
            with mmap.mmap(device, offset + len(data), offset=start) as memory:
                memory[offset : offset + len(data)] = data
            return
        finally:
            os.close(device)
    raise RuntimeError(f"QEMU has no vfio device open whose BAR 0 is at {address:#x}")
