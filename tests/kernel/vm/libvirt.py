"""libvirt's system daemon in the VM, as Debian has it: AppArmor confines it and its domains."""

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

from harness import wait_for

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../.."))
# Where docs/using.md installs it, and AppArmor's rules look for it.
PREFIX = "/opt/vfio-display"
EMULATOR = f"{PREFIX}/bin/qemu-system-x86_64"
FIRMWARE = "/usr/share/seabios", "/usr/share/qemu"
PROFILES = "usr.sbin.libvirtd", "usr.lib.libvirt.virt-aa-helper"
USER = "libvirt-qemu"
PATIENCE_S = 300


def run(*command):
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            timeout=PATIENCE_S, check=False)  # fmt: skip
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {result.stdout.strip()}")
    return result.stdout


def make_writable(test, *directories):
    """The VM's root is the host's, and read-only."""
    test.modules.load("overlay")
    for directory in directories:
        above = f"/run/above{directory}"
        for name in ("upper", "work"):
            os.makedirs(f"{above}/{name}")
        run("mount", "-t", "overlay", "overlay", "-o",
            f"lowerdir={directory},upperdir={above}/upper,workdir={above}/work", directory)  # fmt: skip


def install(binary):
    """The QEMU under test, its firmware and the rules, where scripts/qemu --install would put them."""
    rules = f"{PREFIX}/share/vfio-display/apparmor"
    for directory in (f"{PREFIX}/bin", f"{PREFIX}/share/qemu", rules):
        os.makedirs(directory)
    open(EMULATOR, "wb").close()
    run("mount", "--bind", binary, EMULATOR)
    for name in ("bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin"):
        source = next(path for path in (f"{directory}/{name}" for directory in FIRMWARE) if os.path.exists(path))
        shutil.copy(source, f"{PREFIX}/share/qemu/{name}")
    shutil.copytree("/usr/share/qemu/keymaps", f"{PREFIX}/share/qemu/keymaps")
    for name in ("libvirtd", "libvirt-qemu"):
        with open(f"{ROOT}/scripts/lib/apparmor/{name}", encoding="utf-8") as file:
            text = file.read().replace("@PREFIX@", PREFIX)
        with open(f"{rules}/{name}", "w", encoding="utf-8") as file:
            file.write(text)


def follow_the_manual():
    """What docs/using.md has an administrator do for AppArmor, as it stands there."""
    with open(f"{ROOT}/docs/using.md", encoding="utf-8") as file:
        commands = re.findall(r"^    ((?:mkdir|cp|cat) .*/etc/apparmor\.d/.*)$", file.read(), re.MULTILINE)
    if len(commands) < 2:
        raise RuntimeError(f"docs/using.md has no rules for AppArmor any more: {commands}")
    for command in commands:
        run("sh", "-c", command)


class Libvirtd:
    """The daemon; it ends with the test."""

    def __init__(self, test):
        self.test = test
        make_writable(test, "/etc", "/var", "/opt")
        run("mount", "-t", "securityfs", "none", "/sys/kernel/security")
        run("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")
        shutil.copytree(test.config["libvirt"], "/etc", dirs_exist_ok=True)
        install(test.config["qemu"])
        os.makedirs("/etc/apparmor.d/local/abstractions", exist_ok=True)
        # The package's own scripts make these.
        for name in ("abstractions/libvirt-qemu", *PROFILES):
            open(f"/etc/apparmor.d/local/{name}", "ab").close()
        for database, entry in (("passwd", f"{USER}:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin"),
                                ("group", f"{USER}:x:64055:")):  # fmt: skip
            with open(f"/etc/{database}", "r+", encoding="utf-8") as file:
                if not any(line.startswith(f"{USER}:") for line in file):
                    file.write(entry + "\n")
        follow_the_manual()
        for name in PROFILES:
            run("apparmor_parser", "--replace", "--skip-cache", f"/etc/apparmor.d/{name}")
        with open("/etc/libvirt/libvirtd.conf", "w", encoding="ascii") as file:
            file.write('auth_unix_rw = "none"\n')
        with open("/etc/libvirt/qemu.conf", "w", encoding="ascii") as file:
            # Else a second daemon writes QEMU's messages.
            file.write(f'security_driver = "apparmor"\nuser = "{USER}"\ngroup = "{USER}"\nstdio_handler = "file"\n')
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
    return run("virsh", "-c", "qemu:///system", "-q", *words)


def hostdev(mdev, **attributes):
    """A vGPU of the kernel, as docs/using.md has it."""
    element = ET.Element("hostdev", mode="subsystem", type="mdev", model="vfio-pci", display="on", **attributes)
    ET.SubElement(ET.SubElement(element, "source"), "address", uuid=mdev.uuid)
    ET.SubElement(element, "alias", name="ua-vgpu")
    return element


class Domain:
    """A domain, to the end of a `with` block. Its CPU stands still: what is on the screen, we draw."""

    def __init__(self, test, name, graphics, vgpu=None):
        self.name, self.results = name, test.directory
        text = f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
            <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>
            <devices><emulator>{EMULATOR}</emulator><controller type='usb' model='none'/>
            {graphics}<video><model type='none'/></video><memballoon model='none'/></devices></domain>"""
        domain = ET.fromstring(text)
        if vgpu is not None:
            domain.find("devices").append(vgpu)
        virsh("create", "--paused", self.file("domain", domain))
        with open(f"/run/libvirt/qemu/{name}.pid", encoding="ascii") as file:
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
