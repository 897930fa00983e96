"""The VM's kernel: modules, mediated devices, and what it logs."""

import ctypes
import os
import re
import subprocess
import time
import uuid

LOG_WARNING = 4
SYS_DELETE_MODULE = 176

libc = ctypes.CDLL(None, use_errno=True)

# What the kernel says at every load of an unsigned module from outside its tree, and in a VM whose host is busy.
EXPECTED = [
    re.compile(r"^\w+: loading out-of-tree module taints kernel"),
    re.compile(r"^\w+: module verification failed: signature and/or required key missing"),
    re.compile(r"^hrtimer: interrupt took|^clocksource: |^perf: interrupt took|hogged CPU for"),
]
# Said at any level.
ALARMING = re.compile(
    r"BUG|WARNING|Oops|Call Trace|Bad page|refcount_t|general protection|KFENCE|use-after-free|"
    r"blocked for more than|soft lockup|rcu_.*stall|INFO: task"
)
# A notice, and no fault of the kernel's.
DENIED = 'apparmor="DENIED"'


class KernelLog:
    def __init__(self):
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        self.lines = []

    def read(self):
        """The lines since the last read, as (priority, text)."""
        lines = []
        while True:
            try:
                record = os.read(self.fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return lines
            except BrokenPipeError:
                lines.append((0, "the kernel's log was overrun"))
                continue
            head, text = record.split(";", 1)
            lines.append((int(head.split(",")[0]) & 7, text.split("\n", 1)[0]))

    def problems(self, allowed=()):
        """The lines since the last read that say that something is wrong."""
        allowed = EXPECTED + [re.compile(pattern) for pattern in allowed]
        return [
            text
            for priority, text in self.read()
            if (priority <= LOG_WARNING or ALARMING.search(text) or DENIED in text)
            and not any(pattern.search(text) for pattern in allowed)
        ]


class Modules:
    def __init__(self, tree):
        self.tree = tree

    def load(self, *names):
        missing = [name for name in names if not self.loaded(name)]
        if missing:
            subprocess.run(["modprobe", "-d", self.tree, "-a", *missing], check=True)

    @staticmethod
    def unload(name):
        """Fails while anything of the module is in use."""
        # rmmod does no more, and under emulation takes a second to start.
        if libc.syscall(SYS_DELETE_MODULE, name.encode(), os.O_NONBLOCK) < 0:
            raise RuntimeError(f"{name} cannot be unloaded: {os.strerror(ctypes.get_errno())}")

    @staticmethod
    def loaded(name):
        return os.path.isdir(f"/sys/module/{name}")

    @staticmethod
    def references(name):
        with open(f"/sys/module/{name}/refcnt", encoding="ascii") as file:
            return int(file.read())


class Mdev:
    """A mediated device: one virtual GPU."""

    def __init__(self, parent, kind):
        self.uuid = str(uuid.uuid4())
        types = f"/sys/class/mdev_bus/{parent}/mdev_supported_types"
        with open(f"{types}/{parent}-{kind}/create", "w", encoding="ascii") as file:
            file.write(self.uuid)
        self.path = f"/sys/bus/mdev/devices/{self.uuid}"
        # The process that removes it, and 0 when that has ended.
        self.removal = None

    def start_removal(self):
        """Removes it; the kernel waits until nobody has it open any more."""
        # A process of its own: of a thread that waits in the kernel this one could not end, nor the VM after it.
        self.removal = os.fork()
        if self.removal == 0:
            # What we have open is ours to close.
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            status = 1
            try:
                os.write(os.open(f"{self.path}/remove", os.O_WRONLY), b"1")
                status = 0
            finally:
                os._exit(status)

    def finish_removal(self, timeout=30):
        """Whether it is gone."""
        try:
            wait_for("it is removed", self.removed, timeout, interval=0.02)
        except AssertionError:
            return False
        return not os.path.exists(self.path)

    def removed(self):
        """Whether the kernel has done what there is to be done."""
        if self.removal and os.waitpid(self.removal, os.WNOHANG)[0]:
            self.removal = 0
        return self.removal == 0

    def remove(self):
        if self.removal is None:
            self.start_removal()
        if not self.finish_removal():
            raise RuntimeError(f"mdev {self.uuid} cannot be removed: something holds it")


def wait_for(what, check, timeout=120, interval=0.1):
    """Waits until check() is true; its last answer is returned."""
    deadline = time.monotonic() + timeout
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s in vain: {what}")
        time.sleep(interval)
    return answer
