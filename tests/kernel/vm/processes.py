"""Files that other processes of the VM hold."""

import os
import signal


def open_files(pid, text):
    """Returns files of a process whose names contain this text, as {descriptor: inode}."""
    found = {}
    directory = f"/proc/{pid}/fd"
    for fd in os.listdir(directory):
        try:
            if text in os.readlink(f"{directory}/{fd}"):
                found[fd] = os.stat(f"{directory}/{fd}").st_ino
        except FileNotFoundError:
            pass
    return found


def dma_bufs(pid, exporter):
    """Returns the dma-bufs of this exporter that a process holds. Mesa has others of its own."""
    found = set()
    for fd, inode in open_files(pid, "/dmabuf").items():
        try:
            with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as file:
                if f"exp_name:\t{exporter}\n" in file.read():
                    found.add(inode)
        except FileNotFoundError:
            pass
    return found


def kill_holders(path):
    """Kills processes that have a file under this path open, and returns their names."""
    killed = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if int(pid) == os.getpid() or not open_files(pid, path):
                continue
            with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                killed.append(f"{file.read().strip()} ({pid})")
            os.kill(int(pid), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return killed
