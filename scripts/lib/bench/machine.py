"""The machine, and the versions that are measured."""

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path


def _first_line(*command, cwd=None):
    try:
        done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.split("\n", 1)[0].strip() or None


def _processor():
    found = re.search(r"^model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found.group(1) if found else platform.machine()


def _memory():
    found = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    return round(int(found.group(1)) / (1 << 20)) if found else None


def describe(root, binaries):
    """Returns facts for the report. `binaries`: QEMU's, by variant."""
    revision = _first_line("git", "describe", "--always", "--dirty", "--abbrev=12", cwd=root)
    mesa = _first_line("dpkg-query", "-W", "-f", "${Version}", "libegl-mesa0")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory": _memory(),
        "kernel": platform.release(),
        # One minute's average: what else runs makes results worth less.
        "load": os.getloadavg()[0],
        "qemu": {variant: _first_line(binary, "--version") for variant, binary in binaries.items()},
        "mesa": mesa,
        "revision": revision,
    }


def lines(facts):
    """Returns the same as text."""
    return [
        f"{facts['date']}, revision {facts['revision']}",
        f"{facts['processors']} x {facts['processor']}, {facts['memory']} GiB, Linux {facts['kernel']}, "
        f"no GPU (Mesa {facts['mesa']}, llvmpipe)",
        f"{', '.join(sorted(set(filter(None, facts['qemu'].values()))))}; load before: {facts['load']:.2f}",
    ]
