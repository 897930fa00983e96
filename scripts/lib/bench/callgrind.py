"""Instructions of a refresh, counted exactly by Callgrind, also where perf cannot count."""

import collections
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass

# Where a front end's refresh enters the display: stock's for each mode, the library's glue.
ENTRIES = "vfio_display_dmabuf_update", "vfio_display_region_update", "vfio_display_update"
# What the front ends do with a picture is theirs,
FRONT_ENDS = "dpy_gl_update", "dpy_gl_scanout_dmabuf", "dpy_gfx_update", "dpy_gfx_replace_surface"
# but they may call back,
BACK = ("vfio_display_gl_block",)
# and what it takes to ask the device is the transport's.
TRANSPORT = ("vfio_device_query_gfx_plane",)


def missing():
    """Returns the name of a needed program that is missing, if any."""
    return None if shutil.which("valgrind") else "valgrind"


def wrapper(qemu, directory):
    """Writes an executable that runs QEMU under Callgrind."""
    path = directory / "qemu-under-callgrind"
    options = ["--tool=callgrind", "--collect-atstart=no", *(f"--toggle-collect={name}" for name in ENTRIES),
               f"--callgrind-out-file={directory}/callgrind.out", f"--log-file={directory}/valgrind.log"]
    path.write_text(f"#!/bin/sh\nexec valgrind {shlex.join(options)} {shlex.quote(str(qemu))} \"$@\"\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def control(pid, *options):
    """Sends Callgrind a command."""
    subprocess.run(["callgrind_control", *options, str(pid)], stdout=subprocess.DEVNULL, check=True)


@dataclass(frozen=True)
class Counts:
    """The counts of one dump."""

    refreshes: int
    # Instructions in all refreshes together.
    whole: int
    front_end: int
    transport: int

    def per_refresh(self):
        """Returns instructions of the display's code, of that with device calls, and of everything."""
        asking = self.whole - self.front_end
        return {"refreshes": self.refreshes, "own": (asking - self.transport) / self.refreshes,
                "asking": asking / self.refreshes, "whole": self.whole / self.refreshes}


def _calls(lines):
    """Yields caller, callee, calls and instructions, by the file format in Valgrind's manual."""
    names = {}

    def name(text):
        number, full = re.fullmatch(r"\((\d+)\)(?: (.*))?", text).groups()
        if full:
            names[number] = full
        return names[number]

    caller = callee = None
    lines = iter(lines)
    for line in lines:
        key, _, value = line.rstrip("\n").partition("=")
        if key == "fn":
            caller = name(value)
        elif key == "cfn":
            callee = name(value)
        elif key == "calls":
            yield caller, callee, int(value.split()[0]), int(next(lines).split()[-1])


def read(path):
    """Reads a dump."""
    calls, instructions = collections.Counter(), collections.Counter()
    with open(path, encoding="utf-8", errors="replace") as file:
        for caller, callee, count, cost in _calls(file):
            # What one of them does by another is counted with the first.
            for group in ENTRIES, FRONT_ENDS, TRANSPORT, BACK:
                if callee in group and caller not in group:
                    calls[group] += count
                    instructions[group] += cost
    return Counts(calls[ENTRIES], instructions[ENTRIES], instructions[FRONT_ENDS] - instructions[BACK], instructions[TRANSPORT])
