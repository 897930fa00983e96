"""What scripts/demo runs when everything is built: a vGPU, QEMU, a guest, and pictures of it."""

import argparse
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

from png import differing_pixels, read_png
from qmp import Qmp, QmpError

# Both personalities have the hardware that the guest's bochs driver binds to.
PERSONALITIES = {"dma-buf": "mbochs", "region": "nvidia"}
FIRMWARE = ["/usr/share/seabios", "/usr/share/qemu"]
VGA_ROM = "/usr/share/seabios/vgabios-bochs-display.bin"
PR_SET_PDEATHSIG = 1


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def die_with_parent():
    """Runs in a child: even a killed demo leaves no process behind."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A process with its output in a log; ends with the `with` block."""

    def __init__(self, name, command, log):
        self.name, self.log = name, log
        with open(log, "w", encoding="utf-8") as output:
            output.write("$ " + " ".join(command) + "\n")
            output.flush()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                preexec_fn=die_with_parent)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for signum, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, None)):
            if self.process.poll() is not None:
                break
            os.killpg(self.process.pid, signum)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue

    def alive(self):
        return self.process.poll() is None

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def failure(self, what):
        """An error that shows the end of the log."""
        tail = "\n".join("    | " + line for line in self.text().splitlines()[-15:])
        status = self.process.poll()
        ended = "" if status is None else f" ({self.name} ended with status {status})"
        return DemoError(f"{what}{ended}; the end of {self.log}:\n{tail}")


def wait_for(what, child, seconds, condition):
    """Returns condition()'s first true value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if not child.alive():
            raise child.failure(what)
        if time.monotonic() > deadline:
            raise child.failure(f"{what}: not within {seconds} s")
        time.sleep(0.1)


class Machine:
    """A vGPU and a QEMU that shows it, for one mode."""

    def __init__(self, options, mode, scratch):
        self.options, self.mode, self.scratch = options, mode, scratch
        self.vgpu = self.qemu = self.qmp = None
        self.control = os.path.join(scratch, f"{mode}.control")
        self.socket = os.path.join(scratch, f"{mode}.vfio-user")
        self.serial = os.path.join(options.logs, f"demo-{mode}-serial.log")
        self.pictures, self.same = [], []

    def start_vgpu(self, stack):
        command = [self.options.vgpu, "serve", "--socket", self.socket, "--control", self.control,
                   "--personality", PERSONALITIES[self.mode]]
        self.vgpu = stack.enter_context(
            Child("vgpu", command, os.path.join(self.options.logs, f"demo-{self.mode}-vgpu.log")))
        wait_for("starting the vGPU", self.vgpu, 10, lambda: "vgpu: listening" in self.vgpu.text())

    def start_qemu(self, stack, display):
        device = {
            "driver": "vfio-user-pci", "id": "vgpu0", "display": "on",
            "socket": {"type": "unix", "path": self.socket}, "romfile": VGA_ROM,
        }
        if self.mode == "dma-buf":
            # Region mode has no EDID, and with it no way to ask for a size.
            device.update(xres=1024, yres=768)
        pause = 2 if self.options.headless else 0
        monitor = os.path.join(self.scratch, f"{self.mode}.qmp")
        open(self.serial, "w", encoding="utf-8").close()
        command = [self.options.qemu, "-name", f"vfio-display-{self.mode}"]
        for directory in FIRMWARE:
            command += ["-L", directory]
        command += [
            "-nodefaults", "-no-user-config", "-vga", "none", "-accel", "tcg", "-m", "512" if self.options.desktop else "256",
            "-device", json.dumps(device), "-display", display,
            "-kernel", os.path.join(self.options.guest, "vmlinuz"),
            "-initrd", os.path.join(self.options.guest, "initrd.gz"),
            "-append", f"console=ttyS0 console=tty0 pause={pause} demo={'desktop' if self.options.desktop else 'motion'}",
            # Long enough to read the firmware's text, and to take its picture.
            "-boot", "menu=on,splash-time=3000",
            "-chardev", f"file,id=serial,path={self.serial}", "-serial", "chardev:serial",
            "-qmp", f"unix:{monitor},server=on,wait=off",
            "-trace", "vfio_display*",
        ]
        self.qemu = stack.enter_context(
            Child("QEMU", command, os.path.join(self.options.logs, f"demo-{self.mode}-qemu.log")))
        try:
            self.qmp = Qmp(monitor, alive=self.qemu.alive)
        except QmpError as error:
            raise self.qemu.failure(f"starting QEMU ({error})") from error

    def control_vgpu(self, *command):
        """vgpu ctl; returns the reply's JSON, or {} when there is none."""
        result = subprocess.run([self.options.vgpu, "ctl", "--control", self.control, *command],
                                capture_output=True, text=True, timeout=10, check=False)
        if result.returncode != 0:
            raise DemoError(f"vgpu ctl {' '.join(command)}: {result.stderr.strip()}")
        found = re.search(r"[{\[].*", result.stdout, re.DOTALL)
        return json.loads(found.group()) if found else {}

    def truth(self):
        """What the vGPU itself believes to be on screen, or None when that is nothing."""
        path = os.path.join(self.scratch, "truth.png")
        result = subprocess.run(
            [self.options.vgpu, "screenshot", "--control", self.control, path],
            capture_output=True, timeout=10, check=False)
        return read_png(path) if result.returncode == 0 else None

    def drawn(self):
        """Whether there is something on screen, by the vGPU's own account."""
        picture = self.truth()
        return picture is not None and len(set(picture[2][1::30])) > 1

    def serial_says(self, text):
        with open(self.serial, encoding="utf-8", errors="replace") as file:
            return re.search(text, file.read())

    def take_picture(self, name):
        """QEMU's screenshot, and whether it is what the vGPU has, with the guest held still."""
        path = os.path.join(self.options.output, f"{self.mode}-{len(self.pictures) + 1}-{name}.png")
        self.qmp.command("stop")
        # A refresh may be under way: the picture must be right soon, not at once.
        for _ in range(20):
            self.qmp.command("screendump", filename=path, format="png")
            shown, truth = read_png(path), self.truth()
            different = None if truth is None else differing_pixels(shown, truth)
            if different == 0:
                break
            time.sleep(0.1)
        self.qmp.command("cont")
        self.pictures.append(path)
        self.same.append(different == 0)
        if different != 0:
            say(f"  {path} is not what the vGPU has on screen: "
                + ("another size" if different is None else f"{different} pixels differ"))
        say(f"  {path} ({shown[0]}x{shown[1]})")
        return shown

    def move_pointer(self):
        """The user moves the mouse a little, so that the guest's pointer is seen where no window is."""
        for _ in range(20):
            self.qmp.command("input-send-event", events=[
                {"type": "rel", "data": {"axis": axis, "value": value}} for axis, value in (("x", 8), ("y", 12))])
            time.sleep(0.05)

    def status(self):
        """What the library says of itself; {} in a QEMU without it."""
        try:
            displays = self.qmp.command("query-vfio-display")
        except QmpError:
            return {}
        return displays[0].get("status", {}) if displays else {}

    def row(self):
        """The table's row for this mode."""
        stats, state, status = self.control_vgpu("stats"), self.control_vgpu("state"), self.status()
        return [self.mode, PERSONALITIES[self.mode], str(state.get("mode", "-")),
                str(status.get("refreshes", "-")), str(stats.get("queries", "-")),
                str(stats.get("gets", "-")), str(status.get("imports", "-")),
                f"{sum(self.same)} of {len(self.same)}",
                os.path.join(self.options.output, f"{self.mode}-*.png")]


def headless(machine, stack):
    """Four pictures of a boot."""
    machine.start_vgpu(stack)
    machine.start_qemu(stack, "egl-headless")
    wait_for("the firmware's text on the vGPU", machine.qemu, 60, machine.drawn)
    time.sleep(0.5)
    machine.take_picture("firmware")
    wait_for("the guest's console", machine.qemu, 180, lambda: machine.serial_says("guest: booted"))
    time.sleep(0.5)
    machine.take_picture("boot")
    wait_for("the guest's picture", machine.qemu, 240, lambda: machine.serial_says("guest: ready"))
    if machine.options.desktop:
        machine.move_pointer()
    time.sleep(1)
    what = "desktop" if machine.options.desktop else "console"
    before = machine.take_picture(what)
    time.sleep(machine.options.seconds)
    after = machine.take_picture(f"{what}-later")
    if before == after:
        raise DemoError("the guest's picture did not move between the last two pictures")
    return machine.row()


def window(machine, stack):
    """A window, until it is closed."""
    machine.start_vgpu(stack)
    try:
        machine.start_qemu(stack, "gtk,gl=on")
    except DemoError as error:
        say(str(error))
        say("  without OpenGL instead")
        machine.start_qemu(stack, "gtk,gl=off")
    say("  the guest boots in the window; close it or press Ctrl-C to end")
    deadline = time.monotonic() + machine.options.seconds if machine.options.seconds else None
    while machine.qemu.alive() and (deadline is None or time.monotonic() < deadline):
        time.sleep(0.2)
    if machine.qemu.process.poll() not in (None, 0):
        raise machine.qemu.failure("showing the guest")


def print_table(rows):
    header = ["mode", "vGPU", "resolution", "refreshes", "queries", "dma-bufs got", "imports",
              "as the vGPU has it", "pictures"]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def parse():
    parser = argparse.ArgumentParser()
    for name in ("qemu", "vgpu", "guest", "logs", "modes"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--output", default="")
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--headless", action="store_true")
    parser.add_argument("--desktop", action="store_true")
    return parser.parse_args()


def main():
    options = parse()
    os.makedirs(options.logs, exist_ok=True)
    if options.headless:
        os.makedirs(options.output, exist_ok=True)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, _: sys.exit(128 + number))
    scratch, rows, wrong = tempfile.mkdtemp(prefix="vfio-display-"), [], []
    try:
        for mode in options.modes.split(","):
            began = time.monotonic()
            say(f"{mode} mode, personality {PERSONALITIES[mode]}:")
            with ExitStack() as stack:
                machine = Machine(options, mode, scratch)
                if not options.headless:
                    window(machine, stack)
                    continue
                rows.append(headless(machine, stack))
                if not all(machine.same):
                    wrong.append(mode)
            say(f"  done in {time.monotonic() - began:.0f} s")
    except (DemoError, QmpError, OSError) as error:
        say(f"demo: error: {error}")
        return 1
    except KeyboardInterrupt:
        say("demo: stopped")
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if rows:
        print_table(rows)
    if wrong:
        say(f"demo: error: pictures differ from what the vGPU has on screen: {', '.join(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
