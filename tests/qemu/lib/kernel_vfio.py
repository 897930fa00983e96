"""vGPUs in processes as devices of the kernel: see kernel_vfio.c."""

import os

from .case import KERNEL as LIBRARY, SCRATCH

# What QEMU says of any such device.
CHATTER = "KVM VFIO device isn't created yet",

_SYSFS = os.path.join(SCRATCH, "sysfs")
_groups = {}


def _place(vgpu):
    """The directory in sysfs of a vGPU. Its name is what vfio-user's client calls the device, so that messages are the same."""
    path = os.path.join(_SYSFS, f"vfio-user:{vgpu.name}")
    if vgpu.name not in _groups:
        _groups[vgpu.name] = len(_groups)
        os.makedirs(path)
        os.symlink(f"/groups/{_groups[vgpu.name]}", os.path.join(path, "iommu_group"))
        os.symlink(vgpu.socket, os.path.join(path, "socket"))
    return path


def device(vgpu, properties):
    """What vfio-user's properties of -device are for the kernel's vfio."""
    properties = {name: value for name, value in properties.items() if name not in ("socket", "x-gfx-timeout")}
    return properties | {"driver": properties["driver"].replace("vfio-user-pci", "vfio-pci"), "sysfsdev": _place(vgpu)}


def environment(others):
    """What QEMU needs besides."""
    preloaded = filter(None, [LIBRARY, others.get("LD_PRELOAD")])
    return others | {"LD_PRELOAD": ":".join(preloaded), "KERNEL_VFIO": _SYSFS}
