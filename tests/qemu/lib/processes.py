"""Processes that end with the test, however it ends."""

import ctypes
import os
import signal
import subprocess
import time

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _die_with_parent():
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def start(command, **options):
    """Starts a child that does not outlive this process."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent, **options)


def exit_text(status):
    """Describes how a process ended."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def is_stopped(pid):
    """Returns whether all threads of a process have been stopped by a signal."""
    directory = f"/proc/{pid}/task"
    for thread in os.listdir(directory):
        with open(f"{directory}/{thread}/stat", encoding="utf-8", errors="replace") as file:
            if file.read().rpartition(")")[2].split()[0] != "T":
                return False
    return True


def resources(pid):
    """Returns what a process holds: descriptors, mappings, threads, and resident memory in KiB.

    What QEMU does not want any more is closed by a thread of its own, a moment later: the number of descriptors is one that stays.
    """
    directory = f"/proc/{pid}"
    counts = []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (len(counts) < 5 or len(set(counts[-5:])) > 1):
        counts.append(_descriptors(pid))
        time.sleep(0.02)
    with open(f"{directory}/status", encoding="ascii") as file:
        status = dict(line.split(":", 1) for line in file)
    with open(f"{directory}/maps", encoding="utf-8", errors="replace") as file:
        maps = sum(1 for _ in file)
    return {"fds": counts[-1], "maps": maps, "threads": int(status["Threads"]), "resident": int(status["VmRSS"].split()[0])}
