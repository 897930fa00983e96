"""vGPUs in libvirt domains, with AppArmor enforcing."""

import cases_egl
import libvirt
from cases_mbochs import STOCK_NEEDS_GL
from cases_vgpu import Vgpu
from hardware import UnattendedMbochs
from harness import case
from pictures import Picture
from processes import dma_bufs

SIZE = 128, 96
GRAPHICS = "<graphics type='vnc'><listen type='socket'/></graphics>"
HEADLESS = f"<graphics type='egl-headless'><gl rendernode='{cases_egl.NODE}'/></graphics>"
SPICE = f"<graphics type='spice'><listen type='none'/><gl enable='yes' rendernode='{cases_egl.NODE}'/></graphics>"


def screenshot(domain):
    path = f"/run/tmp/{domain.name}.png"
    libvirt.virsh("screenshot", domain.name, path)
    with open(path, "rb") as file:
        data = file.read()
    return Picture.from_ppm(data) if data.startswith(b"P6") else Picture.from_png(data)


def draws(test, domain, gpu):
    """Checks that what is drawn is on the screen, and that the domain is confined."""
    gpu.mode(*SIZE)
    for seed in (1, 2):
        test.sees(lambda: screenshot(domain), gpu.draw(seed, *SIZE), f"picture {seed} of the domain {domain.name}")
    test.check(domain.profile() == f"libvirt-{libvirt.virsh('domuuid', domain.name).strip()} (enforce)",
               f"{domain.name} is not confined: {domain.profile()}")  # fmt: skip


# AppArmor's denials are in the kernel's log, and fail the test.
@case("libvirt, AppArmor enforcing: display on, hot-plug, ramfb, egl-headless and SPICE with OpenGL on vgem", driver="mbochs_rw",
      stock=STOCK_NEEDS_GL, long=True)  # fmt: skip
def libvirt_mdevs(test):
    cases_egl.vgem(test)
    mdev = test.mdev("small")
    libvirt.Libvirtd(test)

    with libvirt.Domain(test, libvirt.domain("plugged", GRAPHICS)) as domain:
        domain.plug_in(libvirt.hostdev(mdev))
        draws(test, domain, UnattendedMbochs(domain.pid))
    for name, graphics, attributes in (("ramfb", GRAPHICS, {"ramfb": "on"}), ("headless", GRAPHICS + HEADLESS, {}),
                                       ("spice", SPICE, {})):  # fmt: skip
        with libvirt.Domain(test, libvirt.domain(name, graphics, libvirt.hostdev(mdev, **attributes))) as domain:
            draws(test, domain, UnattendedMbochs(domain.pid))


@case("libvirt, AppArmor enforcing: the domain of docs/using.md, with a vGPU in a process", driver=None, stock="no surface", long=True)
def libvirt_vfio_user(test):
    libvirt.Libvirtd(test)
    vgpu = Vgpu(test, libvirt.serve_by_the_manual())
    with libvirt.Domain(test, libvirt.domain_of_the_manual()) as domain:
        draws(test, domain, vgpu)
        test.check(dma_bufs(domain.pid, "udmabuf"), "QEMU holds no real dma-buf")
