"""vGPUs in libvirt domains, with AppArmor enforcing."""

import os

import cases_egl
import front_ends
import libvirt
from cases_mbochs import STOCK_NEEDS_GL
from cases_vgpu import Vgpu
from hardware import UnattendedMbochs
from harness import case, wait_for
from pictures import Picture
from processes import dma_bufs
from root import make_writable

SIZE = 128, 96
# virt-viewer makes no window smaller.
SIZE_OF_WINDOW = 320, 240
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


def virt_viewer_shows(test, domain, gpu):
    """Checks that virt-viewer's window shows what is drawn."""
    make_writable(test.modules, "/tmp")
    screen = test.servers.enter_context(front_ends.display_tests(test, "x11").X11(1024, 768))
    pictures = front_ends.display_tests(test, "pictures")
    environment = {"GDK_BACKEND": "x11", "NO_AT_BRIDGE": "1", "GSETTINGS_BACKEND": "memory", **screen.environment}
    viewer = test.spawn(["virt-viewer", "-c", libvirt.URI, "--attach", domain.name], env={**os.environ, **environment})
    gpu.mode(*SIZE_OF_WINDOW)
    gpu.draw(3)
    want = pictures.load(gpu.screenshot_file())

    def there():
        test.equal(viewer.poll(), None, "virt-viewer has ended (see virt-viewer.log) with")
        picture = screen.picture()
        picture.save(os.path.join(test.directory, "screen.png"))
        return pictures.has_part(picture, want)

    wait_for("virt-viewer's window shows the picture", there, timeout=libvirt.PATIENCE_S)


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


@case("libvirt, AppArmor enforcing: the domain of docs/using.md, with a vGPU in a process, in virt-viewer", driver=None, stock="no surface", long=True)
def libvirt_vfio_user(test):
    libvirt.Libvirtd(test)
    vgpu = Vgpu(test, libvirt.serve_by_the_manual())
    element = libvirt.domain_of_the_manual()
    test.modules.load("tun")
    element.find("devices").append(libvirt.network_card())
    with libvirt.Domain(test, element) as domain:
        draws(test, domain, vgpu)
        test.check(dma_bufs(domain.pid, "udmabuf"), "QEMU holds no real dma-buf")
        virt_viewer_shows(test, domain, vgpu)
    # With KVM, libvirt has the kernel move the packets. Other builds cannot.
    if libvirt.is_installed(test.config["qemu"]):
        test.modules.load("vhost_net")
        libvirt.run(libvirt.EMULATOR, "-display", "none", "-netdev", "tap,id=net0,script=no,downscript=no,vhost=on",
                    "-device", "virtio-net-pci,netdev=net0", "-monitor", "stdio", written="quit\n")
