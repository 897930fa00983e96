"""vGPUs in processes as devices of the kernel: see kernel_vfio.c."""

import os

from .case import KERNEL as LIBRARY, SCRATCH

# Messages that QEMU logs for every such device.
CHATTER = "KVM VFIO device isn't created yet",

_SYSFS = os.path.join(SCRATCH, "sysfs")
_groups = {}


def _place(vgpu):
    """Creates the sysfs directory of a vGPU, named as vfio-user names the device in messages."""
    path = os.path.join(_SYSFS, f"vfio-user:{vgpu.name}")
    if vgpu.name not in _groups:
        _groups[vgpu.name] = len(_groups)
        os.makedirs(path)
        os.symlink(f"/groups/{_groups[vgpu.name]}", os.path.join(path, "iommu_group"))
        os.symlink(vgpu.socket, os.path.join(path, "socket"))
    return path


def device(vgpu, properties):
    """Translates vfio-user's properties of -device for the kernel's vfio."""
    properties = {name: value for name, value in properties.items() if name not in ("socket", "x-gfx-timeout")}
    return properties | {"driver": properties["driver"].replace("vfio-user-pci", "vfio-pci"), "sysfsdev": _place(vgpu)}


def environment(others):
    """Returns what QEMU needs besides."""
    preloaded = filter(None, [LIBRARY, others.get("LD_PRELOAD")])
    return others | {"LD_PRELOAD": ":".join(preloaded), "KERNEL_VFIO": _SYSFS}
