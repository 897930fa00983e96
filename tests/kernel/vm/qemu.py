"""A QEMU under test: its process, its QMP, and its guest's hardware through qtest."""

import base64
import json
import os
import select
import signal
import socket
import subprocess
import time

from pictures import Picture
from processes import dma_bufs, open_files

# Everything is emulated twice here. No result depends on how long something takes.
PATIENCE_S = 120


class QemuError(Exception):
    """QEMU ended, refused a command or did not answer."""


class Channel:
    """Lines over a UNIX socket that QEMU listens on."""

    def __init__(self, qemu, path):
        self.qemu, self.path, self.data = qemu, path, b""
        self.socket = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.socket.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                qemu.check_alive()
                if time.monotonic() > deadline:
                    raise QemuError(f"no listener on {path}") from None
                time.sleep(0.05)
        self.socket.settimeout(PATIENCE_S)

    def send(self, line, fds=()):
        try:
            # Descriptors go with the first byte. sendmsg() may send only a part.
            data = line.encode() + b"\n"
            sent = socket.send_fds(self.socket, [data], fds) if fds else 0
            self.socket.sendall(data[sent:])
        except OSError as error:
            raise QemuError(f"{self.path}: {error}; {self.qemu.status()}") from None

    def receive(self):
        while b"\n" not in self.data:
            try:
                more = self.socket.recv(1 << 20)
            except TimeoutError:
                raise QemuError(f"no answer on {self.path}; {self.qemu.status()}") from None
            except OSError as error:
                raise QemuError(f"{self.path}: {error}; {self.qemu.status()}") from None
            if not more:
                raise QemuError(f"{self.path} was closed; {self.qemu.status()}")
            self.data += more
        line, self.data = self.data.split(b"\n", 1)
        return line.decode()

    def pending(self):
        return b"\n" in self.data or bool(select.select([self.socket], [], [], 0)[0])


class Qemu:
    count = 0

    def __init__(self, binary, directory, devices, *, display="none", accel="qtest", extra=(), environment=None):
        Qemu.count += 1
        name = os.path.join(directory, f"qemu-{Qemu.count}")
        # Sockets do not work on 9p.
        run = os.path.join(os.environ["TMPDIR"], f"qemu-{Qemu.count}")
        self.directory, self.log_path = run, name + ".log"
        self.events = []
        self.killed = False
        os.mkdir(run)
        command = [
            binary, "-nodefaults", "-no-user-config", "-machine", "pc", "-m", "64",
            "-accel", accel, "-vga", "none", "-display", display,
            "-L", "/usr/share/seabios", "-L", "/usr/share/qemu",
            "-qmp", f"unix:{run}/qmp,server=on,wait=off",
            "-msg", "timestamp=off",
        ]  # fmt: skip
        if accel == "qtest":
            command += ["-qtest", f"unix:{run}/qtest,server=on,wait=off", "-qtest-log", "none"]
        for device in devices:
            command += ["-device", device]
        command += extra
        with open(self.log_path, "wb") as log:
            log.write((" ".join(command) + "\n").encode())
            log.flush()
            self.log_start = log.tell()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(environment)
            )
        self.qmp_channel = self.qtest_channel = None
        try:
            self.qmp_channel = Channel(self, run + "/qmp")
            self.qmp_channel.receive()
            self.qmp("qmp_capabilities")
            if accel == "qtest":
                self.qtest_channel = Channel(self, run + "/qtest")
        except QemuError as error:
            self.process.kill()
            self.process.wait()
            raise QemuError(f"{error}; it said: {self.log()}") from None

    @staticmethod
    def environment(added):
        # Threads that compile shaders cost more here than they save. And with AVX, llvmpipe can
        # draw wrong under Debian 12's emulator (mbochs-gtk-gl: a texture gets its first pixel's
        # colour).
        llvmpipe = {"LIBGL_ALWAYS_SOFTWARE": "1", "LP_NUM_THREADS": "1", "LP_NATIVE_VECTOR_WIDTH": "128"}
        return {**os.environ, **llvmpipe, **(added or {})}

    def log(self):
        with open(self.log_path, "rb") as file:
            file.seek(self.log_start)
            return file.read().decode(errors="replace")

    def messages(self):
        """Returns QEMU's messages, except for those about every such device."""
        usual = (
            "Could not enable error recovery",
            "no available reset mechanism",
            "KVM VFIO device isn't created yet",
            "GLib-",
            "libEGL",
            # zink on lavapipe, for each imported dma-buf that it draws: it cannot get a fence.
            "MESA: Unable to get a valid memory fd",
        )
        lines = (line for line in self.log().splitlines() if line)
        return [line for line in lines if not any(text in line for text in usual)]

    def status(self):
        """Describes whether QEMU runs."""
        try:
            code = self.process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            return "QEMU runs"
        if code < 0:
            return f"QEMU was ended by {signal.Signals(-code).name}"
        return f"QEMU ended with {code}"

    def check_alive(self):
        if self.process.poll() is not None:
            raise QemuError(self.status())

    def qmp(self, execute, **arguments):
        return self.execute(execute, arguments)

    def send_fd(self, execute, file, **arguments):
        """Runs a QMP command that takes a descriptor."""
        return self.execute(execute, arguments, [file.fileno()])

    def execute(self, execute, arguments, fds=()):
        self.qmp_channel.send(json.dumps({"execute": execute, "arguments": arguments}), fds)
        while True:
            reply = json.loads(self.qmp_channel.receive())
            if "event" in reply:
                self.events.append(reply)
            elif "error" in reply:
                raise QemuError(f"QMP {execute}: {reply['error']['desc']}")
            else:
                return reply["return"]

    def qtest(self, line):
        self.qtest_channel.send(line)
        reply = self.qtest_channel.receive().split()
        if reply[0] != "OK":
            raise QemuError(f"qtest {line[:60]}: {' '.join(reply)}")
        return reply[1:]

    def write(self, address, data):
        """Writes to the guest's physical memory, as its CPU would."""
        for start in range(0, len(data), 1 << 18):
            part = data[start : start + (1 << 18)]
            text = base64.b64encode(part).decode()
            self.qtest(f"b64write {address + start:#x} {len(part):#x} {text}")

    def read(self, address, size):
        return base64.b64decode(self.qtest(f"b64read {address:#x} {size:#x}")[0])

    def screendump(self, device=None):
        path = os.path.join(self.directory, "screen.ppm")
        arguments = {"device": device} if device else {}
        self.qmp("screendump", filename=path, **arguments)
        with open(path, "rb") as file:
            data = file.read()
        os.unlink(path)
        return Picture.from_ppm(data)

    def open_files(self, text):
        """Returns QEMU's files whose names contain this text, as {descriptor: inode}."""
        return open_files(self.process.pid, text)

    def dma_bufs(self, exporter):
        """Returns the dma-bufs that QEMU holds."""
        return dma_bufs(self.process.pid, exporter)

    def quit(self):
        """Ends QEMU through QMP. Fails unless it ends with success."""
        if self.process.poll() is None:
            self.qmp("quit")
        try:
            code = self.process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise QemuError("QEMU did not quit") from None
        if code != 0:
            raise QemuError(self.status())

    def expected_dead(self):
        """Returns whether the test has ended QEMU itself."""
        return self.killed

    def kill(self):
        self.killed = True
        self.process.kill()
        self.process.wait(timeout=PATIENCE_S)


class PciDevice:
    """A PCI device of the guest at a slot of bus 0, configured by hand as a firmware would."""

    def __init__(self, qemu, slot):
        self.qemu, self.slot = qemu, slot

    def config_read(self, offset):
        self.qemu.qtest(f"outl 0xcf8 {0x80000000 | self.slot << 11 | offset & ~3:#x}")
        return int(self.qemu.qtest("inl 0xcfc")[0], 16)

    def config_write(self, offset, value):
        self.qemu.qtest(f"outl 0xcf8 {0x80000000 | self.slot << 11 | offset & ~3:#x}")
        self.qemu.qtest(f"outl 0xcfc {value:#x}")

    def place_bar(self, index, address):
        """Maps a BAR and returns its size."""
        offset = 0x10 + 4 * index
        self.config_write(offset, 0xFFFFFFFF)
        size = (~(self.config_read(offset) & ~0xF) + 1) & 0xFFFFFFFF
        self.config_write(offset, address)
        return size

    def enable(self):
        self.config_write(4, 2)
