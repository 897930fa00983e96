"""Debian's libvirt system daemon in the VM: AppArmor confines it and its domains."""

import os
import re
import shlex
import shutil
import subprocess
import xml.etree.ElementTree as ET

from harness import wait_for
from root import make_writable

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../.."))
# The prefix in docs/using.md and in AppArmor's rules.
PREFIX = "/opt/vfio-display"
EMULATOR = f"{PREFIX}/bin/qemu-system-x86_64"
FIRMWARE = "/usr/share/seabios", "/usr/share/qemu", "/usr/lib/ipxe/qemu"
PROFILES = "usr.sbin.libvirtd", "usr.lib.libvirt.virt-aa-helper"
URI = "qemu:///system"
USER = "libvirt-qemu"
PATIENCE_S = 300


def run(*command, written=""):
    result = subprocess.run(command, input=written, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            timeout=PATIENCE_S, check=False)  # fmt: skip
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {result.stdout.strip()}")
    return result.stdout


def is_installed(binary):
    """Whether scripts/qemu --install has put it into docs/using.md's prefix."""
    return binary == EMULATOR


def install(binary, vgpu):
    """Puts the QEMU under test, vgpu, firmware and rules where scripts/qemu --install would, unless it did."""
    if is_installed(binary):
        return
    os.makedirs(PREFIX, exist_ok=True)
    # Nothing is to be used of an installation that is there, but not under test.
    run("mount", "-t", "tmpfs", "none", PREFIX)
    rules = f"{PREFIX}/share/vfio-display/apparmor"
    for directory in (f"{PREFIX}/bin", f"{PREFIX}/share/qemu", rules):
        os.makedirs(directory)
    for source, target in ((binary, EMULATOR), (vgpu, f"{PREFIX}/bin/vgpu")):
        open(target, "wb").close()
        run("mount", "--bind", source, target)
    for name in ("bios-256k.bin", "efi-virtio.rom", "kvmvapic.bin", "linuxboot_dma.bin", "vgabios-bochs-display.bin"):
        source = next(path for path in (f"{directory}/{name}" for directory in FIRMWARE) if os.path.exists(path))
        shutil.copy(source, f"{PREFIX}/share/qemu/{name}")
    shutil.copytree("/usr/share/qemu/keymaps", f"{PREFIX}/share/qemu/keymaps")
    for name in ("libvirtd", "libvirt-qemu"):
        with open(f"{ROOT}/scripts/lib/apparmor/{name}", encoding="utf-8") as file:
            text = file.read().replace("@PREFIX@", PREFIX)
        with open(f"{rules}/{name}", "w", encoding="utf-8") as file:
            file.write(text)


def manual(pattern, count):
    """Returns parts of docs/using.md verbatim, and checks how many there are."""
    with open(f"{ROOT}/docs/using.md", encoding="utf-8") as file:
        found = re.findall(pattern, file.read(), re.MULTILINE)
    if len(found) != count:
        raise RuntimeError(f"docs/using.md has {len(found)} and not {count} of {pattern}: {found}")
    return found


def allow_by_the_manual():
    """Sets up AppArmor as docs/using.md tells an administrator to."""
    for command in manual(r"^    ((?:mkdir|cat) .*/etc/apparmor\.d/.*)$", 3):
        run("sh", "-c", command)


def serve_by_the_manual():
    """Returns the command of docs/using.md that starts a vGPU in a process."""
    for command in manual(r"^    (mkdir .*/run/vgpu)$", 1):
        run("sh", "-c", command)
    return shlex.split(manual(rf"^    ({PREFIX}/bin/vgpu serve .*) &$", 1)[0])


def set_up(test):
    """Sets the VM up, once, as packages and docs/using.md do."""
    make_writable(test.modules, "/etc", "/var", "/opt")
    run("mount", "-t", "securityfs", "none", "/sys/kernel/security")
    run("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")
    shutil.copytree(test.config["libvirt"], "/etc", dirs_exist_ok=True)
    install(test.config["qemu"], test.config["vgpu"])
    os.makedirs("/etc/apparmor.d/local/abstractions", exist_ok=True)
    # The package's own scripts create these.
    for name in ("abstractions/libvirt-qemu", *PROFILES):
        open(f"/etc/apparmor.d/local/{name}", "ab").close()
    for database, entry in (("passwd", f"{USER}:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin"),
                            ("group", f"{USER}:x:64055:")):  # fmt: skip
        with open(f"/etc/{database}", "r+", encoding="utf-8") as file:
            if not any(line.startswith(f"{USER}:") for line in file):
                file.write(entry + "\n")
    allow_by_the_manual()
    for name in PROFILES:
        run("apparmor_parser", "--replace", "--skip-cache", f"/etc/apparmor.d/{name}")
    with open("/etc/libvirt/libvirtd.conf", "w", encoding="ascii") as file:
        file.write('auth_unix_rw = "none"\n')
    with open("/etc/libvirt/qemu.conf", "w", encoding="ascii") as file:
        # Otherwise a second daemon, virtlogd, would write QEMU's messages.
        file.write(f'security_driver = "apparmor"\nuser = "{USER}"\ngroup = "{USER}"\nstdio_handler = "file"\n')


class Libvirtd:
    """The daemon, which ends with the test."""

    def __init__(self, test):
        if not os.path.ismount("/sys/kernel/security"):
            set_up(test)
        self.process = test.spawn(["aa-exec", "-p", "libvirtd", "--", "libvirtd"])
        wait_for("libvirt's daemon", self.answers, timeout=PATIENCE_S)

    def answers(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"libvirtd ended with {self.process.returncode} (see aa-exec.log)")
        try:
            return virsh("uri")
        except RuntimeError:
            return None


def virsh(*words):
    return run("virsh", "-c", URI, "-q", *words)


def hostdev(mdev, **attributes):
    """Returns the XML of a vGPU of the kernel, as in docs/using.md."""
    element = ET.Element("hostdev", mode="subsystem", type="mdev", model="vfio-pci", display="on", **attributes)
    ET.SubElement(ET.SubElement(element, "source"), "address", uuid=mdev.uuid)
    ET.SubElement(element, "alias", name="ua-vgpu")
    return element


def network_card():
    """Returns the XML of a virtio network card that leads nowhere."""
    element = ET.Element("interface", type="ethernet")
    ET.SubElement(element, "model", type="virtio")
    return element


def domain(name, graphics, vgpu=None):
    """Returns the XML of a domain, with a vGPU or without."""
    text = f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
        <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>
        <devices><emulator>{EMULATOR}</emulator><controller type='usb' model='none'/>
        {graphics}<video><model type='none'/></video><memballoon model='none'/></devices></domain>"""
    found = ET.fromstring(text)
    if vgpu is not None:
        found.find("devices").append(vgpu)
    return found


def domain_of_the_manual():
    """Returns the domain of docs/using.md with a vGPU in a process, without KVM and disk."""
    found = ET.fromstring(manual(r"^```xml\n((?:(?!```)[^\n]*\n)*)```", 1)[0])
    found.set("type", "qemu")
    found.find("memory").text, found.find("vcpu").text = "64", "1"
    found.find("memory").set("unit", "MiB")
    devices = found.find("devices")
    devices.remove(devices.find("disk"))
    ET.SubElement(devices, "controller", type="usb", model="none")
    return found


class Domain:
    """A domain, for a `with` block. Its CPU is stopped: the test draws what is on the screen."""

    def __init__(self, test, element):
        self.name, self.results = element.findtext("name"), test.directory
        virsh("create", "--paused", self.file("domain", element))
        with open(f"/run/libvirt/qemu/{self.name}.pid", encoding="ascii") as file:
            self.pid = int(file.read())

    def file(self, kind, element):
        path = f"/run/tmp/{self.name}-{kind}.xml"
        ET.ElementTree(element).write(path)
        return path

    def plug_in(self, element):
        virsh("attach-device", self.name, self.file("device", element), "--live")

    def profile(self):
        with open(f"/proc/{self.pid}/attr/current", encoding="ascii") as file:
            return file.read().strip("\0\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.copy(f"/var/log/libvirt/qemu/{self.name}.log", self.results)
        virsh("destroy", self.name)
