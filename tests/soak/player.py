"""Plays scripts: vGPUs, a QEMU and its clients, and what must be true of them at all times."""

import collections
import contextlib
import os
import re
import socket
import time

from gi.repository import GLib

import script
from lib import dbus, dbus_hostile, processes, spice
from lib.case import Failure, until
from lib.dbus import DBusScreen
from lib.gtk import FULL_SCREEN
from lib.pictures import same_as_console, same_as_screen
from lib.qemu import Qemu, QmpError, device
from lib.qtest import Qtest
from lib.scenes import gtk
from lib.spice import Spice
from lib.vgpu import Vgpu, VgpuError
from lib.vnc import Vnc
from lib.wayland import Wayland
from lib.x11 import X11, Front

# Words of the sanitizers, which QEMU's own messages do not contain.
_SANITIZERS = "ERROR: AddressSanitizer", "runtime error:", "ERROR: LeakSanitizer", "SUMMARY: "
# How many dma-bufs a display may keep, and how many more descriptors and threads than at the first
# quiet point QEMU may hold besides: some things, such as encoder threads, are created at first use.
_POOL = 4
_DESCRIPTORS = _THREADS = 8
# Messages not of a vGPU's display, which come as often as clients do.
_CHATTER = ("Spice: ", *dbus.IN_FLIGHT, *dbus_hostile.NEWCOMERS)
_DATED = re.compile(r"^\S+T(\d\d):(\d\d):([\d.]+)Z (.*)$")
# Front ends with which QEMU frees all memory when it ends; Mesa, GTK and SDL do not.
_WITHOUT_LEAKS = "none", "spice", "dbus,p2p=yes"
# Seconds that a reset may take: it waits for a silent device, some seconds for each register.
_LONGEST_RESET = 120
# Seconds for which QEMU does not run: longer than it waits for a device.
_FROZEN = 0.5
# A place that windows of any size have.
_IN_WINDOW = 40, 40
# Seconds in which GTK replaces a tab by another.
_REPLACED = 0.2
# Seconds after which a window that has moved meanwhile is looked for again.
_MOVED = 5
# What clients and windows do, by the step's word.
_ACTIONS = {"hold": "hold", "release": "release", "forget": "forget", "zoom": "zoom_in", "full": "fill_screen"}
# Ctrl and Alt.
_CONTROL, _ALT = 0xFFE3, 0xFFE9


class Player:
    """Plays the lines of a script."""

    def __init__(self, monitor_limit, picture_limit, message_gap, mappings):
        self._monitor_limit, self._picture_limit, self._message_gap = monitor_limit, picture_limit, message_gap
        self._slack = {"fds": _DESCRIPTORS, "maps": mappings, "threads": _THREADS}
        self._stack = contextlib.ExitStack()
        self._vgpus, self._options, self._plugged, self._clients = {}, {}, {}, {}
        self._qemu = self._baseline = self._window = self._bridge = None
        self._properties = {}
        self.steps = self.quiet_points = 0
        self.longest_answer = 0.0

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        try:
            if kind is None:
                self._end()
        finally:
            # The failure has been reported already.
            with contextlib.suppress(Exception):
                for client in self._clients.values():
                    client.__exit__(None, None, None)
            with contextlib.suppress(Exception):
                self._stack.__exit__(kind or Failure, *error)

    def _end(self):
        for name in list(self._clients):
            self._close(name)
        self._qemu.qmp("quit")
        status = self._qemu.process.wait(120)
        self._read_log()
        if status:
            raise Failure(f"quit: QEMU {processes.exit_text(status)}")

    def play(self, line):
        """Plays one line, and checks that QEMU lives and answers."""
        what, *words = line.split()
        if what == "setup":
            self._setup(**dict(word.split("=", 1) for word in words))
            return
        self.steps += 1
        if what.startswith("vgpu"):
            self._command(what, words)
        elif what == "qemu":
            getattr(self, f"_qemu_{words[0].replace('-', '_')}")(*words[1:])
        elif what in _ACTIONS:
            self._act(words[0], _ACTIONS[what])
        else:
            getattr(self, f"_{what}")(*words)
        self._answers("query-name")
        self._read_log()

    # --- the steps -------------------------------------------------------------------------------

    def _setup(self, screen, personalities, second, sealed, thread="on", events="no", beside="none", server="x11", bus="root",
               migration="refused"):
        self._properties = {"x-gfx-timeout": 100, "x-display-options": f"pool-buffers={_POOL},thread={thread}"}
        if migration == "allowed":
            self._properties["x-block-migration"] = False
        serve = ["--memfd"]
        if sealed == "no":
            serve.append("--unsealed")
        if events == "yes":
            serve.append("--display-events")
        for number, personality in enumerate(personalities.split(",")):
            name = f"vgpu{number}"
            self._options[name] = personality, serve
            self._start(name)
            self._plugged[name] = True
        arguments = ["-msg", "timestamp=on"]
        display = screen
        if screen.startswith("spice") or beside == "spice":
            arguments += spice.arguments(gl=screen == "spice-gl")
        if screen.startswith("spice"):
            display = "none"
        environment = {}
        if screen.startswith("gtk"):
            display = gtk(screen.partition("gl=")[2])
            window, screen_of = (_GtkWindow, X11) if server == "x11" else (_KioskWindow, Wayland)
            self._window = window(self._stack.enter_context(screen_of()))
        elif screen.startswith("sdl"):
            self._window = _SdlWindow(self._stack.enter_context(X11()))
        if self._window:
            environment = self._window.server.environment
        devices = []
        if bus == "bridge":
            self._bridge = _Bridge()
            self._properties["bus"] = _Bridge.DEVICE["id"]
            devices.append(_Bridge.DEVICE)
            arguments += self._bridge.arguments
        devices += map(self._device, self._vgpus)
        # A second display that is not a vGPU and has no guest driver.
        if second != "none":
            devices.append({"driver": second, "id": "second"})
        leaks = int(screen in _WITHOUT_LEAKS)
        environment = environment | {"ASAN_OPTIONS": f"detect_leaks={leaks}:abort_on_error=1:allocator_may_return_null=1",
                                     "UBSAN_OPTIONS": "print_stacktrace=1"}
        self._qemu = self._stack.enter_context(Qemu(
            screen=display, vnc=True, devices=devices, arguments=arguments, environment=environment))
        if self._bridge:
            self._bridge.connect()

    def _start(self, name):
        personality, options = self._options[name]
        if name in self._vgpus:
            # A vGPU that died has left its sockets.
            for path in self._vgpus[name].socket, f"{self._vgpus[name].socket}.control":
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        self._vgpus[name] = self._stack.enter_context(Vgpu(personality, *options, name=name))

    def _device(self, name):
        return device(self._vgpus[name], rombar=0, **self._properties)

    def _command(self, name, words):
        if name not in self._vgpus:
            return
        if words == ["die"]:
            self._vgpus[name].kill()
            return
        with contextlib.suppress(VgpuError, OSError, Failure):
            self._vgpus[name].ask(" ".join(words))

    def _pause(self, milliseconds):
        time.sleep(int(milliseconds) / 1000)

    def _qemu_reset(self):
        # A reset waits for the device, as the guest's own accesses do.
        self._qemu.qmp("system_reset")

    def _qemu_bus_reset(self):
        if self._bridge:
            self._bridge.reset()

    def _qemu_freeze(self):
        # As when a laptop sleeps: all limits of time are over at once.
        with self._qemu.standing_still():
            time.sleep(_FROZEN)

    def _qemu_save(self):
        """Saves the VM, as far as a vGPU can be, and has it go on."""
        with contextlib.suppress(QmpError):
            # With file:, QEMU leaks the file's name.
            self._qemu.qmp("migrate", uri="exec:cat >/dev/null")
            until("the VM is saved", lambda: self._qemu.qmp("query-migrate").get("status") in ("completed", "failed"), 60)
            self._answers("cont")

    def _qemu_savevm(self):
        # There is no disk for it.
        self._qemu.hmp("savevm walk")

    def _qemu_stop(self):
        self._answers("stop")

    def _qemu_cont(self):
        self._answers("cont")

    def _qemu_info(self):
        self._qemu.hmp("info vfio-display")
        for name, plugged in self._plugged.items():
            if plugged:
                with contextlib.suppress(QmpError):
                    self._qemu.status(name)

    def _qemu_screendump(self):
        # It may wait for the device, as long as a poll may take.
        self._qemu.refresh()

    def _qemu_unplug(self, name):
        if not self._plugged.get(name):
            return
        self._qemu.events.clear()
        self._qemu.qmp("device_del", id=name)
        # There is no guest to release it, so a reset removes it.
        self._qemu.qmp("system_reset")
        self._gone(name)

    def _gone(self, name):
        def gone():
            found = self._qemu.qmp("qom-list", path="/machine/peripheral")
            return name not in [entry["name"] for entry in found]

        until(f"the end of {name}", gone, 60)
        self._plugged[name] = False

    def _qemu_plug(self, name):
        if name not in self._vgpus or self._plugged[name] or self._vgpus[name].process.poll() is not None:
            return
        try:
            self._qemu.qmp("device_add", **self._device(name))
        except QmpError:
            return  # A device with faults may be refused.
        self._plugged[name] = True

    def _open(self, name, kind, console="0"):
        if name in self._clients:
            return
        if kind not in ("vnc", "silent"):
            # One of SPICE and one of D-Bus at a time: the next replaces the previous one.
            for other, client in list(self._clients.items()):
                if not isinstance(client, (Vnc, _Silent)) and isinstance(client, Spice) == (kind == "spice"):
                    self._close(other)
        if kind == "silent":
            client = _Silent(self._qemu.vnc_socket)
        elif kind == "vnc":
            client = Vnc(self._qemu.vnc_socket)
        elif kind == "dbus":
            client = DBusScreen(self._qemu, int(console))
        elif kind == "deaf":
            client = dbus_hostile.Slow(self._qemu, int(console))
        elif kind in ("mute", "nameless"):
            client = _Stranger(self._qemu, says_who=kind == "mute")
        else:
            client = Spice(int(console))
        self._clients[name] = client.__enter__()
        if kind == "spice":
            # While it connects, libspice-server 0.15.1 bears no other mode: see README.md.
            until("a SPICE client's first picture", client.has_connected, 60)

    def _close(self, name):
        self._act(name, "release")
        client = self._clients.pop(name, None)
        if client:
            with contextlib.suppress(OSError, GLib.Error):
                client.__exit__(None, None, None)

    def _act(self, name, action, *arguments):
        client = self._window if name == "window" else self._clients.get(name)
        method = getattr(client, action, None)
        if method:
            with contextlib.suppress(OSError, TypeError, GLib.Error):
                method(*arguments)

    def _size(self, name, size):
        width, height = map(int, size.split("x"))
        self._act(name, "ask_size", width, height)
        self._act(name, "set_size", width, height)

    def _keys(self, name):
        for digit in "2", "1":
            self._act(name, "press", _CONTROL, _ALT, ord(digit))

    # --- what must be true -----------------------------------------------------------------------

    def _answers(self, command):
        began = time.monotonic()
        self._qemu.qmp(command)
        took = time.monotonic() - began
        self.longest_answer = max(self.longest_answer, took)
        if took > self._monitor_limit:
            raise Failure(f"the monitor took {took:.2f} s for {command}")

    def _read_log(self):
        last = {}
        for line in self._qemu.messages():
            if any(words in line for words in _SANITIZERS):
                raise Failure(f"a sanitizer says: {line}")
            dated = _DATED.match(line)
            if not dated:
                continue
            hours, minutes, seconds, said = dated.groups()
            if any(words in said for words in _CHATTER):
                continue
            when = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            if said in last and 0 <= when - last[said] < self._message_gap:
                raise Failure(f"said twice within a second: {said}")
            last[said] = when

    def _quiet(self):
        """Has the devices tell the truth again. All must show it, with nothing left of before."""
        self.quiet_points += 1
        self._answers("cont")
        for name in [name for name, client in self._clients.items() if isinstance(client, _WITHOUT_PICTURE)]:
            self._close(name)
        # While a client uses a scanout, the device is not asked for the next.
        for name in list(self._clients):
            self._act(name, "release")
        for name in list(self._vgpus):
            self._repair(name)
        # Which console is whose depends on what was plugged in when, so all vGPUs show the same.
        # The mode is new since the last quiet point: a region is queried once per mode, also from a
        # liar.
        size = ((648, 488), (664, 472))[self.quiet_points % 2]
        point = f"quiet point {self.quiet_points}"
        for vgpu in self._vgpus.values():
            vgpu.show("{}x{} buffers=2".format(*size), "noise", self.quiet_points)
        for name, vgpu in self._vgpus.items():
            same_as_console(f"{point}, {name}'s console", vgpu, self._qemu, device=name, seconds=self._picture_limit)
        for name, client in self._clients.items():
            same_as_screen(f"{point}, {type(client).__name__} {name}", self._vgpus["vgpu0"], client, seconds=self._picture_limit)
        if self._window:
            self._window_shows(point, size)
        for name in list(self._clients):
            self._close(name)
        self._holds_no_more()

    def _window_shows(self, point, size):
        """Finds the window by its white picture, and then compares others. It may still be on its way to its size, and place."""
        self._window.restore()
        deadline = time.monotonic() + self._picture_limit
        while True:
            self._draw("solid:ffffff")
            window = until(f"{point}: a window with a picture of {size}", lambda: self._window.view(size), self._picture_limit)
            self._draw(f"noise seed={self.quiet_points}")
            try:
                return same_as_screen(f"{point}, the window", self._vgpus["vgpu0"], window, seconds=_MOVED)
            except Failure:
                if time.monotonic() > deadline:
                    raise

    def _draw(self, pattern):
        for vgpu in self._vgpus.values():
            vgpu.ask(f"pattern {pattern}")

    def _repair(self, name):
        """Makes sure that the vGPU lives, is plugged in, and tells the truth."""
        if self._vgpus[name].process.poll() is not None:
            self._qemu_unplug(name)
            self._start(name)
        vgpu = self._vgpus[name]
        for command in "fault clear", "stop", f"shrink-buffer {script.MEMORY}", "plane on", "on-reset keep", "cursor off":
            with contextlib.suppress(VgpuError):
                vgpu.ask(command)
        if self._plugged[name] and not self._stays_connected(name):
            self._qemu_unplug(name)
        if not self._plugged[name]:
            until(f"{name} can be plugged in", lambda: self._plug_now(name), 60)

    def _stays_connected(self, name):
        """Whether QEMU bears with all that a vGPU has sent."""
        vgpu = self._vgpus[name]
        asked = vgpu.stats()["queries"]

        def read():
            self._qemu.refresh(device=name)
            stats = vgpu.stats()
            # By its next query QEMU had read what was sent before the last answer.
            return not stats["connected"] or stats["queries"] >= asked + 2

        until(f"QEMU has read what {name} sent", read, 60)
        return vgpu.stats()["connected"]

    def _plug_now(self, name):
        self._qemu_plug(name)
        return self._plugged[name]

    def _holds_no_more(self):
        def held():
            found = processes.resources(self._qemu.process.pid)
            return {kind: found[kind] for kind in self._slack}

        def too_much(now):
            pools = _POOL * len(self._vgpus)
            return any(now[kind] > self._baseline[kind] + pools + slack for kind, slack in self._slack.items())

        if self._baseline is None:
            self._baseline = held()
            return
        deadline = time.monotonic() + max(30, self._picture_limit)
        while too_much(now := held()):
            if time.monotonic() > deadline:
                raise Failure(f"at quiet point {self.quiet_points} QEMU holds {now}, at the first one {self._baseline}; "
                              f"descriptors: {_descriptors(self._qemu.process.pid)}")
            time.sleep(0.2)


def _descriptors(pid):
    """Counts a process's descriptors by kind."""
    directory = f"/proc/{pid}/fd"
    kinds = collections.Counter()
    for number in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            kinds[re.sub(r"[\d\[\]]+", "", os.readlink(f"{directory}/{number}"))] += 1
    return dict(kinds)


class _Bridge:
    """A PCI bridge, whose bus can be reset, as a guest's firmware does."""

    _SLOT, _CONTROL, _RESET = 0x1E, 0x3C, 1 << 22
    DEVICE = {"driver": "pci-bridge", "id": "bridge", "chassis_nr": 1, "addr": f"{_SLOT:x}"}

    def __init__(self):
        self._qtest = Qtest()
        self.arguments = self._qtest.arguments

    def connect(self):
        """Connects to the QEMU that has the arguments."""
        self._qtest.connect(_LONGEST_RESET)

    def reset(self):
        """Resets all devices on its bus."""
        control = self._qtest.read_config(self._SLOT, self._CONTROL)
        for value in control | self._RESET, control & ~self._RESET:
            self._qtest.write_config(self._SLOT, self._CONTROL, value)


class _SdlWindow:
    """SDL's window, as its user sees it. If there are two, both are of the same size and show the same."""

    def __init__(self, server):
        self.server = server

    def view(self, size):
        """Returns it, once it has this size; None before."""
        front = Front(self.server, size)
        return front if front.picture() else None

    def set_size(self, width, height):
        """Resizes it."""
        self.server.resize(width, height)

    def restore(self):
        """Undoes what was done to the window. Another mode gives it another size."""


class _GtkWindow(_SdlWindow):
    """GTK's window: in the end, the first tab."""

    def view(self, size):
        """Returns what shows a white picture of this size; None if there is nothing like it."""
        window = self.server.any_window()
        return window if window and window.size == size else None

    def press(self, *keys):
        """Presses Ctrl, Alt and a digit in it."""
        self._press(f"Control_L+Alt_L+{chr(keys[-1])}")

    def zoom_in(self):
        """Makes the picture larger."""
        self._press("Control_L+Alt_L+equal")

    def fill_screen(self):
        """Fills the screen for a moment. The picture has its own size after that."""
        for _ in "on", "off":
            self._press(FULL_SCREEN)

    def restore(self):
        """Gives the picture its own size."""
        # Without a menu bar, QEMU has no key for that.
        self.fill_screen()

    def _press(self, keys):
        self.server.move_pointer(*_IN_WINDOW)
        self.server.press(keys)
        # Without a window manager, the next key goes to what is below the mouse, which may be replaced now.
        time.sleep(_REPLACED)
        self.server.move_pointer(*self.server.corner)


class _KioskWindow(_GtkWindow):
    """GTK's window, which fills a Wayland compositor's screen: that is what is resized."""

    def restore(self):
        """Gives the screen and the picture their own sizes."""
        self.server.resize(*self.server.size)
        super().restore()


class _Silent:
    """A VNC client that connects, perhaps only half, and then reads nothing."""

    def __init__(self, path):
        self._vnc = socket.socket(socket.AF_UNIX)
        self._vnc.connect(path)
        self._vnc.sendall(b"RFB 003.008\n\x01\x01")
        # Requests for the whole screen, again and again.
        self._vnc.settimeout(1)
        with contextlib.suppress(OSError):
            self._vnc.sendall(b"\x03\0\0\0\0\0\xff\xff\xff\xff" * 20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._vnc.close()


class _Stranger(dbus_hostile.Silent):
    """A D-Bus client that registers a listener, authenticates or not, and answers nothing."""

    def __init__(self, qemu, says_who):
        super().__init__(qemu)
        # There may be no such console at the moment, or too many listeners waiting.
        with contextlib.suppress(GLib.Error):
            if says_who:
                self.register_and_authenticate()
            else:
                self.register()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


_WITHOUT_PICTURE = _Silent, _Stranger, dbus_hostile.Slow
