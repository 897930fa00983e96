"""What other processes of the VM hold."""

import os


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
