"""What other processes of the VM hold."""

import os
import signal


def open_files(pid, text):
    """What a process has open under names with this text, as {descriptor: inode}."""
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
    """The dma-bufs of this exporter that a process holds, each once; Mesa has dma-bufs of its own."""
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
    """Ends who has a file under this path open, and names them."""
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
