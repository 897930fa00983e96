"""The kernel's vGPUs in domains of libvirt's, with AppArmor enforcing."""

import cases_egl
import libvirt
from cases_mbochs import STOCK_NEEDS_GL
from hardware import UnattendedMbochs
from harness import case
from pictures import Picture

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


def draws(test, domain):
    """What is drawn is on the screen, and the domain is confined."""
    gpu = UnattendedMbochs(domain.pid)
    gpu.mode(*SIZE)
    want = gpu.draw(1, *SIZE)
    test.sees(lambda: screenshot(domain), want, f"the domain {domain.name}")
    test.check(domain.profile() == f"libvirt-{libvirt.virsh('domuuid', domain.name).strip()} (enforce)",
               f"{domain.name} is not confined: {domain.profile()}")  # fmt: skip


# What AppArmor denies is in the kernel's log, and fails the test.
@case("libvirt, AppArmor enforcing: display on, hot-plug, ramfb, egl-headless and SPICE with OpenGL on vgem", driver="mbochs_rw",
      stock=STOCK_NEEDS_GL, long=True)  # fmt: skip
def libvirt_mdevs(test):
    cases_egl.vgem(test)
    mdev = test.mdev("small")
    libvirt.Libvirtd(test)

    with libvirt.Domain(test, "plugged", GRAPHICS) as domain:
        domain.plug_in(libvirt.hostdev(mdev))
        draws(test, domain)
    for name, graphics, attributes in (("ramfb", GRAPHICS, {"ramfb": "on"}), ("headless", GRAPHICS + HEADLESS, {}),
                                       ("spice", SPICE, {})):  # fmt: skip
        with libvirt.Domain(test, name, graphics, libvirt.hostdev(mdev, **attributes)) as domain:
            draws(test, domain)
