"""QEMU with vGPUs, driven through QMP."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress

from . import kernel_vfio, processes
from .case import DEBUG, KERNEL, OPTIONS, QEMU, SCRATCH, VARIANT, Failure, debug, filtered, output_file, say, until

FIRMWARE = ("/usr/share/seabios", "/usr/share/qemu")
VGA_ROM = "/usr/share/seabios/vgabios-bochs-display.bin"

# Without a GPU, software OpenGL needs the surfaceless platform: no render node, no window system.
_SURROUNDINGS = ("DISPLAY", "WAYLAND_DISPLAY", "EGL_PLATFORM", "LIBGL_ALWAYS_SOFTWARE", "G_MESSAGES_DEBUG")

# After so many seconds, a screendump is answered with the last picture.
GIVEN_UP = 0.1


class QmpError(Exception):
    """QEMU refused a command."""


def device(vgpu, display="on", **properties):
    """Returns the arguments of -device and device_add for a vGPU, as JSON if not all are strings."""
    # On a busy machine, answers are late.
    patience = {"x-gfx-timeout": 5000}
    properties = {"driver": "vfio-user-pci", "id": vgpu.name, "display": display,
                  "socket": {"type": "unix", "path": vgpu.socket}, **patience, **properties}
    return kernel_vfio.device(vgpu, properties) if KERNEL else properties


class Qemu:
    """A QEMU, for a `with` block. By default there is no guest: nothing executes.

    `devices` are further arguments of -device; `display` and `properties` are those of the vGPUs, `options` those of the
    library (`x-display-options`; QEMU's own code has none). Messages with words of `ignore` are none of the test's business.
    """

    _count = 0

    def __init__(self, *vgpus, display="on", properties=None, options=None, screen="none", devices=(), guest=False, vnc=False,
                 arguments=(), environment=None, ignore=(), start=True, binary=QEMU):
        Qemu._count += 1
        name = "qemu" if Qemu._count == 1 else f"qemu{Qemu._count}"
        self._name = name
        self._monitor = os.path.join(SCRATCH, f"{name}.monitor")
        self.vnc_socket = os.path.join(SCRATCH, f"{name}.vnc")
        self.firmware_log = output_file(f"{name}.firmware")
        self._log = output_file(f"{name}.log")
        self.events = []
        # On a busy machine any call may take so long.
        self._ignored = (*ignore, " takes longer than 100 ms", *(kernel_vfio.CHATTER if KERNEL else ()))
        command = [binary, "-nodefaults", "-no-user-config", "-vga", "none", "-display", screen, "-machine", "pc",
                   "-m", "64", "-chardev", f"socket,id=monitor,path={self._monitor},server=on,wait=off",
                   "-mon", "chardev=monitor,mode=control"]
        for directory in FIRMWARE:
            command += ["-L", directory]
        if os.environ.get("VFIO_DPY_TEST_SANDBOX"):
            # As libvirt configures it.
            command += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
        if guest:
            command += ["-accel", "tcg", "-chardev", f"file,id=firmware,path={self.firmware_log}",
                        "-device", "isa-debugcon,iobase=0x402,chardev=firmware"]
        else:
            command += ["-accel", "qtest"]
        if vnc:
            command += ["-vnc", f"unix:{self.vnc_socket}"]
        for vgpu in vgpus:
            settings = {"romfile": VGA_ROM} if guest else {"rombar": 0}
            settings.update(properties or {})
            chosen = ",".join(filter(None, [OPTIONS, options]))
            if chosen and VARIANT == "enabled":
                settings["x-display-options"] = chosen
            command += ["-device", json.dumps(device(vgpu, display, **settings))]
        for settings in devices:
            command += ["-device", json.dumps(settings)]
        if DEBUG:
            command += ["-trace", "vfio_display*"]
        command += arguments
        debug("$ " + " ".join(command))
        # Mesa reports each GL call that fails, so that no error goes unnoticed in the queue.
        mesa = {"MESA_DEBUG": "1"}
        environment = {name: value for name, value in os.environ.items() if name not in _SURROUNDINGS} | mesa | (environment or {})
        if KERNEL:
            environment = kernel_vfio.environment(environment)
        with open(self._log, "ab") as log:
            self.process = processes.start(command, stdout=log, stderr=log, env=environment)
        self._read = 0
        self._lines = self._connection = None
        if start:
            self._connect()

    def _connect(self):
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(60)

        def connected():
            try:
                self._connection.connect(self._monitor)
            except OSError:
                if self.process.poll() is not None:
                    raise self._died("starting QEMU") from None
                return False
            return True

        until("QEMU's monitor", connected, 60)
        self._lines = self._connection.makefile("r", encoding="utf-8")
        self._receive("greeting")
        self.qmp("qmp_capabilities")

    def _died(self, what):
        try:
            status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            return Failure(f"{what}: QEMU closed its monitor, but runs on")
        said = "; ".join(self.messages()) or "nothing"
        return Failure(f"{what}: QEMU {processes.exit_text(status)}; it said: {said}")

    def _receive(self, what):
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise Failure(f"{what}: QEMU did not answer within {self._connection.gettimeout()} s") from None
        except OSError:
            line = ""
        if not line:
            raise self._died(what)
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        ending = None
        if self.process.poll() is None and kind is None:
            try:
                self.qmp("quit")
                ending = self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise Failure("quit: QEMU did not end within 60 s") from None
        if kind is not None and self.process.poll() is None:
            self._leave_status()
        self.process.kill()
        self.process.wait()
        if self._connection:
            self._lines.close()
            self._connection.close()
        if kind is None:
            for line in self.messages():
                say(f"QEMU said at last: {line}")
            if ending not in (0, None):
                raise Failure(f"quit: QEMU {processes.exit_text(ending)}")

    def _leave_status(self):
        """Saves the status of the displays, to explain a failure."""
        try:
            status = self.hmp("info vfio-display")
        except (Failure, QmpError):
            return
        with open(output_file(f"{self._name}.status"), "w", encoding="utf-8") as file:
            file.write(status)

    def qmp(self, command, **arguments):
        """Runs a QMP command. Dashes in names are underscores here."""
        return self._execute(command, arguments, [])

    def send_fd(self, command, file, **arguments):
        """Runs a QMP command that takes a descriptor."""
        return self._execute(command, arguments, [file.fileno()])

    def begin(self, command, **arguments):
        """Sends a QMP command, and returns a function that waits for its answer. QEMU runs no other meanwhile."""
        self._send(command, arguments, [])
        return lambda: self._answer(command)

    def _execute(self, command, arguments, fds):
        self._send(command, arguments, fds)
        return self._answer(command)

    def _send(self, command, arguments, fds):
        message = {"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        debug(f"QMP <- {json.dumps(message)}")
        try:
            socket.send_fds(self._connection, [json.dumps(message).encode() + b"\n"], fds)
        except OSError:
            raise self._died(command) from None

    def _answer(self, command):
        while True:
            answer = self._receive(command)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise QmpError(filtered(answer["error"]["desc"]))
            else:
                return answer["return"]

    def wait_event(self, name, seconds=30):
        """Waits for an event, and returns it. Events before it are forgotten."""
        def arrived():
            self.qmp("query-name")
            while self.events:
                event = self.events.pop(0)
                if event["event"] == name:
                    return event
            return None

        return until(f"event {name}", arrived, seconds)

    def descriptors(self):
        """Returns how many descriptors it holds, once that does not change any more."""
        return processes.resources(self.process.pid)["fds"]

    def unplug(self, name):
        """Unplugs a device. Without a guest that releases it, the reset removes it."""
        self.qmp("device_del", id=name)
        self.qmp("system_reset")
        self.wait_event("DEVICE_DELETED")

    def hmp(self, line):
        """Runs a command of the human monitor."""
        return self.qmp("human-monitor-command", command_line=line).replace("\r\n", "\n")

    def screendump(self, device=None, form="ppm"):
        """Writes what a console shows to a file; returns the path. PPM, since PNG takes QEMU long."""
        path = os.path.join(SCRATCH, f"{self._name}.{form}")
        where = {"device": device} if device else {}
        self.qmp("screendump", filename=path, format=form, **where)
        return path

    def fresh_screendump(self, device=None):
        """A screendump that shows what the device has by now. On a busy machine one may be answered with what was polled before."""
        for _ in range(10):
            began = time.monotonic()
            path = self.screendump(device=device)
            if time.monotonic() - began < GIVEN_UP or not self._has_thread():
                break
        return path

    def refresh(self, times=1, device=None):
        """Has the display poll the device, as a screendump does even if no client is connected."""
        for _ in range(times):
            try:
                self.fresh_screendump(device)
            except QmpError as error:
                debug(f"screendump: {error}")

    def _has_thread(self):
        """Whether a display polls on a thread, which a screendump does not wait for any longer than GIVEN_UP."""
        return VARIANT == "enabled" and any(display["status"].get("thread") for display in self.qmp("query-vfio-display"))

    def status(self, device="vgpu0"):
        """Returns the status of a display. QEMU's own display code has no such command."""
        for display in self.qmp("query-vfio-display"):
            if display.get("id") == device:
                return display["status"]
        raise Failure(f"query-vfio-display: there is no {device}")

    def say_egl(self):
        """Prints QEMU's status of EGL, without what depends on Mesa's version."""
        lines = self.hmp("info vfio-display").splitlines()
        for line in lines[next((i for i, line in enumerate(lines) if line.startswith("EGL")), len(lines)):]:
            say("    " + re.sub(r"imports \d+ formats", "imports N formats", line))

    def read_back(self):
        """Returns how many pictures were read back asynchronously, and how often there was no new one."""
        counts = re.search(r"  read back: (\d+) pictures; (\d+) times", self.hmp("info vfio-display"))
        return (int(counts[1]), int(counts[2])) if counts else (0, 0)

    def messages(self):
        """Returns QEMU's messages since the last call, in whole lines: it writes them in pieces."""
        lives = self.process.poll() is None
        with open(self._log, "rb") as file:
            file.seek(self._read)
            said = file.read()
        if lives:
            said = said[:said.rfind(b"\n") + 1]
        self._read += len(said)
        text = said.decode(errors="replace")
        traced = ("vfio_display",)
        lines = []
        for line in text.splitlines():
            line = filtered(line)
            if DEBUG and line.startswith(traced):
                debug(line)
            elif line.strip() == "qemu:":
                # A thread of SPICE's was printing when QEMU ended.
                continue
            elif line and not any(words in line for words in self._ignored):
                line = re.sub(r"-device \{.*?\}: ", "-device ...: ", line.removeprefix("qemu: "))
                # How many messages were suppressed, and who notices an end first, depends on
                # timing.
                line = re.sub(r" \(\d+ more before\)$", "", line)
                lines.append(re.sub(r" has gone: .*", " has gone: ...", line))
        return lines

    def say_messages(self):
        """Prints QEMU's messages since the last time, or that there are none."""
        for line in self.messages() or ["nothing"]:
            say(f"    QEMU said: {line}")

    def wait_message(self, words, seconds=20):
        """Waits for a message with these words, and prints all messages."""
        collected = []

        def said():
            collected.extend(self.messages())
            return any(words in line for line in collected)

        until(f"message '{words}'", said, seconds)
        for line in collected:
            say(f"    QEMU said: {line}")

    def wait_firmware(self):
        """Waits until the firmware found nothing to boot, and stops it before its cursor moves again."""
        def finished():
            if self.process.poll() is not None:
                raise self._died("firmware")
            with open(self.firmware_log, encoding="ascii", errors="replace") as file:
                return "No bootable device" in file.read()

        until("the firmware's last words", finished, 90)
        self.qmp("stop")

    def wait_end(self, seconds=60):
        """Waits for the end of a QEMU that refuses to start, and returns how it ended."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"QEMU was to refuse to start, but still runs after {seconds} s") from None

    @contextmanager
    def standing_still(self):
        """Stops QEMU for a `with` block, so that it finds at once all that was done meanwhile."""
        self.process.send_signal(signal.SIGSTOP)
        # Its threads stop a moment later.
        until("QEMU stands still", lambda: processes.is_stopped(self.process.pid))
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    @contextmanager
    def without_descriptors(self):
        """For a `with` block, QEMU cannot open anything more."""
        pid, names = self.process.pid, []
        limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir(f"/proc/{pid}/fd")))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, limit[1]))
        with open(os.devnull, encoding="ascii") as file, suppress(QmpError):
            while True:
                self.send_fd("getfd", file, fdname=f"spare{len(names)}")
                names.append(f"spare{len(names)}")
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
            for name in names:
                self.qmp("closefd", fdname=name)

    def duration(self, command, **arguments):
        """Returns how many seconds a QMP command takes."""
        began = time.monotonic()
        self.qmp(command, **arguments)
        return time.monotonic() - began
