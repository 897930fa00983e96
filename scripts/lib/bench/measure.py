"""Measures scenes with one QEMU and one vGPU, and writes the results to a file.

scripts/bench runs it in its own process, whose environment names the binaries as for a display
test.
"""

import argparse
import contextlib
import json
import os
import sys
import time

from lib import Qemu, Vgpu, spice, until
from lib.case import SCRATCH
from lib.x11 import X11

from bench import callgrind, cases
from bench.viewers import DBusViewer, SpiceViewer, VncViewer, X11Viewer

# Before a measurement, for the display to see the mode, and for pools and pacing to settle.
WARM_UP = 1.0
# From here on a wait for the monitor is long, in ms.
LONG_WAIT = 5.0
# The cursor that appears: of one colour, which is the same from both ends. A client that has none
# for so long gets none.
CURSOR, CURSOR_PIXEL, CURSOR_PATIENCE = "cursor 64x64 100,50 color=ff808080", b"\x80\x80\x80\xff", 20
# Under Callgrind, time does not matter.
WARM_UP_REFRESHES, COUNTED_REFRESHES = 100, 200
# CPU time is not measured while the monitor is queried.
ASK_EVERY = 0.005
# clock_gettime's number for the CPU time of another process, from the kernel's posix-timers.h.
_CPUCLOCK_SCHED = 2
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """Returns the CPU time of all threads of a process, including ended ones."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def system_share(pid):
    """Returns the CPU seconds that a process spent in the kernel, in whole ticks."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[12]) / _TICKS


def memory(pid):
    """Returns the KiB that a process holds and held at most, including shared memory."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    return {"peak": int(lines["VmHWM"].split()[0]), "resident": int(lines["VmRSS"].split()[0])}


def percentiles(nanoseconds):
    """Returns p50, p99 and the largest, in ms; None if there is nothing."""
    if not nanoseconds:
        return None
    ordered = sorted(nanoseconds)

    def at(part):
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] / 1e6

    return {"p50": at(0.5), "p99": at(0.99), "max": ordered[-1] / 1e6}


def waits(nanoseconds):
    """Returns how long the monitor's answers took, and the part of the time in long waits."""
    milliseconds = [each / 1e6 for each in nanoseconds]
    long = sum(each for each in milliseconds if each > LONG_WAIT)
    # Between the questions, nobody waits.
    return {**percentiles(nanoseconds), "waiting": long / (sum(milliseconds) + 1000 * ASK_EVERY * len(milliseconds))}


def refreshes(status):
    """Reads from a display's status how long refreshes took: pairs of microseconds and a count."""
    counts = status.get("refresh-microseconds", {}).pop("counts", ())
    return [(each["microseconds"], each["refreshes"]) for each in counts]


def held(before, after):
    """Returns how long refreshes held the main loop between two readings of the status."""
    before = dict(before)
    counts = ((microseconds, count - before.get(microseconds, 0)) for microseconds, count in after)
    return [(microseconds, count) for microseconds, count in counts if count]


def seen_by_queries(stamps):
    """Returns how many flips there were, how many a query saw before the next one, and how late."""
    delays = [seen - time for _, _, time, seen in stamps if seen]
    return {"flips": len(stamps), "seen": len(delays), "delay": percentiles(delays)}


def seen_by_client(stamps, marks):
    """Returns the same for a client that reads marks: how many different flips came, and how late."""
    times = {sequence: time for sequence, _, time, _ in stamps}
    delays = {}
    for arrival, mark in marks:
        if mark in times:
            # What is drawn in place is there a moment before the vGPU has noted when.
            delays.setdefault(mark, max(0, arrival - times[mark]))
    return {"seen": len(delays), "delay": percentiles(list(delays.values()))}


class Bench:
    """A vGPU, a QEMU and its client, for a `with` block."""

    def __init__(self, group, options, stack):
        self.group = group
        self.vgpu = stack.enter_context(Vgpu(*cases.MODES[group.mode], "--vram", "64"))
        front_end = group.front_end
        width, height = cases.SIZES[group.size]
        environment = {}
        if front_end.client == "x11":
            # Room for the window and what the toolkit puts around.
            server = stack.enter_context(X11(width + 64, height + 64, X11Viewer.arguments(SCRATCH)))
            environment = server.environment
        self.qemu = stack.enter_context(
            Qemu(self.vgpu, screen=front_end.screen, vnc=front_end.client == "vnc", environment=environment, options=options,
                 arguments=spice.arguments(front_end.opengl) if front_end.client == "spice" else ()))
        self.pid = self.qemu.process.pid
        self.viewer, self.dumps = None, 0
        if front_end.client == "vnc":
            self.viewer = stack.enter_context(VncViewer(self.qemu.vnc_socket))
        elif front_end.client == "dbus":
            self.viewer = stack.enter_context(DBusViewer(self.qemu))
        elif front_end.client == "spice":
            self.viewer = stack.enter_context(SpiceViewer())
        elif front_end.client == "x11":
            self.vgpu.show(f"{width}x{height}", "solid:ffffff")
            self.viewer = stack.enter_context(X11Viewer(server, SCRATCH, server.window(width, height).corner))

    def show(self, scene):
        """Starts a scene."""
        width, height = cases.SIZES[self.group.size]
        self.vgpu.ask(f"mode {width}x{height} buffers={scene.buffers}")
        # As a desktop's buffers: nearly alike.
        for buffer in range(scene.buffers):
            self.vgpu.ask(f"pattern {scene.pattern} buffer={buffer}")
        if scene.fault:
            self.vgpu.ask(f"fault {scene.fault}")
        self.vgpu.ask(scene.command)

    def end(self):
        """Ends the scene."""
        for command in "fault clear", "stop", "flip-on-query off":
            self.vgpu.ask(command)

    def status(self):
        """Returns the library's status; QEMU's own code has none."""
        return self.qemu.status() if os.environ["VFIO_DPY_TEST_VARIANT"] == "enabled" else None

    def answers(self, seconds):
        """Returns how long the monitor takes to answer, in ns, one command after the other."""
        durations = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic_ns()
            self.qemu.qmp("query-name")
            durations.append(time.monotonic_ns() - began)
            time.sleep(ASK_EVERY)
        return durations

    def measure(self, scene, seconds):
        """Measures a scene for some seconds."""
        self.show(scene)
        time.sleep(min(WARM_UP, 2 * seconds))
        self.vgpu.ask("stats reset")
        earlier = self.status()
        arrivals = self.viewer.arrivals if self.viewer else None
        if arrivals:
            arrivals.marks.clear()
        pictures, size = (arrivals.pictures, arrivals.bytes) if arrivals else (0, 0)
        system, cpu, began = system_share(self.pid), cpu_seconds(self.pid), time.monotonic_ns()
        time.sleep(seconds)
        ended, cpu, system = time.monotonic_ns(), cpu_seconds(self.pid) - cpu, system_share(self.pid) - system
        stats = self.vgpu.stats()
        came = (arrivals.pictures - pictures, arrivals.bytes - size) if arrivals else None
        status = self.status()
        answers = self.answers(seconds) if scene.asked else None
        stamps = self.vgpu.ask("stamps")
        self.end()
        # What was flipped last may still be on its way.
        stamps = [stamp for stamp in stamps if began <= stamp[2] < ended - 100_000_000]
        elapsed = (ended - began) / 1e9
        result = {
            "scene": scene.name,
            "seconds": elapsed,
            "cpu": cpu / elapsed,
            "system": system / elapsed,
            "queries": stats["queries"] / elapsed,
            "gets": stats["gets"],
            "flips": stats["flips"],
            "fds": len(os.listdir(f"/proc/{self.pid}/fd")),
            "memory": memory(self.pid),
        }
        if answers:
            result["answers"] = waits(answers)
        if came:
            result["pictures"], result["bytes"] = came[0] / elapsed, came[1] / elapsed
            # Seconds for each; there may be a message now and then where nothing changes.
            result["picture"] = cpu / came[0] if scene.rate and came[0] else None
        if stamps:
            result["noticed"] = seen_by_queries(stamps)
            if arrivals and scene.marked:
                shown = result["shown"] = seen_by_client(stamps, arrivals.marks)
                shown["part"] = shown["seen"] / len(stamps)
        if status:
            result["held"] = held(refreshes(earlier), refreshes(status))
            result["status"] = status
        return result

    def appear(self, scene, seconds):
        """Measures how long it takes until a client has a cursor, after a static picture."""
        self.show(scene)
        time.sleep(seconds)
        began = time.monotonic()
        self.vgpu.ask(CURSOR)
        while not self.has_cursor():
            if time.monotonic() - began > CURSOR_PATIENCE:
                began = None
                break
            time.sleep(0.001)
        appeared = began and time.monotonic() - began
        self.vgpu.ask("cursor off")
        self.end()
        return {"scene": scene.name, "appeared": appeared}

    def has_cursor(self):
        """Returns whether the pointer is the vGPU's cursor."""
        cursor = self.viewer.cursor
        return bool(cursor) and cursor["size"] == (64, 64) and cursor["pixels"].startswith(CURSOR_PIXEL)

    def count(self, scene):
        """Returns how many instructions refreshes take."""
        self.show(scene)
        self.refreshes(WARM_UP_REFRESHES)
        callgrind.control(self.pid, "--zero")
        self.refreshes(COUNTED_REFRESHES)
        # Callgrind adds the number of the dump.
        self.dumps += 1
        callgrind.control(self.pid, "--dump")
        path = os.path.join(os.environ["VFIO_DPY_TEST_OUTPUT"], f"callgrind.out.{self.dumps}")
        until("Callgrind's dump", lambda: os.path.exists(path), 60)
        stats = self.vgpu.stats()
        self.end()
        return {"scene": scene.name, "gets": stats["gets"], "instructions": callgrind.read(path).per_refresh()}

    def refreshes(self, count):
        """Waits until there were that many queries."""
        self.vgpu.ask("stats reset")
        until("queries of the screen", lambda: self.vgpu.stats()["queries_primary"] >= count, 120)


def main():
    """Measures, as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("group", help="FRONT-END/MODE/SIZE")
    parser.add_argument("scenes", help="names, with commas")
    parser.add_argument("seconds", type=float)
    parser.add_argument("result", help="file")
    parser.add_argument("options", help="the library's")
    options = parser.parse_args()
    front_end, mode, size = options.group.split("/")
    scenes = tuple(cases.SCENES[name] for name in options.scenes.split(","))
    group = cases.Group(cases.FRONT_ENDS[front_end], mode, size, scenes)
    with contextlib.ExitStack() as stack:
        bench = Bench(group, options.options, stack)
        results = []
        for scene in scenes:
            if group.front_end.callgrind:
                results.append(bench.count(scene))
            elif scene.cursor:
                results.append(bench.appear(scene, options.seconds))
            else:
                results.append(bench.measure(scene, options.seconds))
    with open(options.result, "w", encoding="utf-8") as file:
        json.dump(results, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
