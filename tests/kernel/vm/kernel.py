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

# Messages at every load of an unsigned out-of-tree module, and on a busy host.
EXPECTED = [
    re.compile(r"^\w+: loading out-of-tree module taints kernel"),
    re.compile(r"^\w+: module verification failed: signature and/or required key missing"),
    re.compile(r"^hrtimer: interrupt took|^clocksource: |^perf: interrupt took|hogged CPU for"),
    re.compile(r"^TSC found unstable after boot|^sched_clock: Marking unstable"),
]
# These count at any level.
ALARMING = re.compile(
    r"BUG|WARNING|Oops|Call Trace|Bad page|refcount_t|general protection|KFENCE|use-after-free|"
    r"blocked for more than|soft lockup|rcu_.*stall|INFO: task"
)
# A notice, not a fault.
DENIED = 'apparmor="DENIED"'


class KernelLog:
    def __init__(self):
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        self.lines = []

    def read(self):
        """Returns the lines since the last read, as (priority, text)."""
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
        """Returns the lines since the last read that report a fault."""
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
        """Unloads the module. Fails while it is in use."""
        # rmmod does the same, but takes a second to start under emulation.
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
        # The process that removes it; 0 once that has ended.
        self.removal = None

    def start_removal(self):
        """Removes it. The kernel waits until nobody has it open any more."""
        # In a process: a thread that waits in the kernel would keep this one, and the VM, from
        # ending.
        self.removal = os.fork()
        if self.removal == 0:
            # Our own descriptors would hold it, too.
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            status = 1
            try:
                os.write(os.open(f"{self.path}/remove", os.O_WRONLY), b"1")
                status = 0
            finally:
                os._exit(status)

    def finish_removal(self, timeout=30):
        """Returns whether it is gone."""
        try:
            wait_for("it is removed", self.removed, timeout, interval=0.02)
        except AssertionError:
            return False
        return not os.path.exists(self.path)

    def removed(self):
        """Returns whether the kernel has finished."""
        if self.removal and os.waitpid(self.removal, os.WNOHANG)[0]:
            self.removal = 0
        return self.removal == 0

    def remove(self):
        if self.removal is None:
            self.start_removal()
        if not self.finish_removal():
            raise RuntimeError(f"mdev {self.uuid} cannot be removed: something holds it")


def wait_for(what, check, timeout=120, interval=0.1):
    """Waits until check() is true, and returns its last answer."""
    deadline = time.monotonic() + timeout
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s in vain: {what}")
        time.sleep(interval)
    return answer
