"""The table of tests, and the environment that each runs in."""

import contextlib
import gc
import os
import subprocess
import time
from dataclasses import dataclass
from typing import Callable, Optional

from kernel import ALARMING, KernelLog, Mdev, Modules, wait_for
from processes import dma_bufs, kill_holders
from qemu import PATIENCE_S, Qemu, QemuError
from rfb import Vnc

CASES = []


class Failed(Exception):
    """A test's expectation did not hold."""


@dataclass
class Case:
    name: str
    title: str
    driver: Optional[str]
    stock: Optional[str]
    kernel_log: tuple
    long: bool
    function: Callable


def case(title, *, driver, stock=None, kernel_log=(), long=False):
    """Registers a function as a test, named after it.

    driver: the module with the vGPU; None for none.
    stock: what stock QEMU is known to do instead.
    kernel_log: warnings of the kernel that belong to the test, as regular expressions.
    long: it is run only if asked for.
    """

    def register(function):
        name = function.__name__.replace("_", "-")
        CASES.append(Case(name, title, driver, stock, tuple(kernel_log), long, function))
        return function

    return register


class Test:
    """The environment of one test. finish() takes down everything created through it."""

    def __init__(self, a_case, config, directory):
        self.case, self.config, self.directory = a_case, config, directory
        self.log = KernelLog()
        self.modules = Modules(config["modules"])
        self.mdevs, self.qemus, self.processes = [], [], []
        # What is taken down before QEMU ends, and what after.
        self.clients, self.servers = contextlib.ExitStack(), contextlib.ExitStack()
        self.pictures = 0
        self.kernel_is_sound = True

    def prepare(self):
        self.log.read()
        for driver in ("mbochs", "mbochs_rw", "mdpy", "vgem"):
            if driver != self.case.driver and Modules.loaded(driver):
                self.modules.unload(driver)
        if self.case.driver:
            self.modules.load("vfio_pci", "vfio_iommu_type1", self.case.driver)

    # What tests make.

    def mdev(self, kind):
        parent = self.case.driver.removesuffix("_rw")
        device = Mdev(parent, kind)
        self.mdevs.append(device)
        return device

    def qemu(self, devices, binary=None, **options):
        qemu = Qemu(binary or self.config["qemu"], self.directory, devices, **options)
        self.qemus.append(qemu)
        return qemu

    def vnc(self, path):
        return self.clients.enter_context(contextlib.closing(Vnc(path)))

    def spawn(self, command, **options):
        """Starts a program beside QEMU."""
        log = open(os.path.join(self.directory, os.path.basename(command[0]) + ".log"), "ab")
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options
        )
        log.close()
        self.processes.append(process)
        return process

    # What they expect.

    def check(self, condition, message):
        if not condition:
            raise Failed(message)

    def equal(self, got, want, what):
        self.check(got == want, f"{what}: {got!r} instead of {want!r}")

    def shows(self, qemu, want, what="the screen", device=None):
        """Expects this picture on the screen, now or soon: the console polls."""
        self.sees(lambda: qemu.screendump(device), want, what, qemu)

    def sees(self, look, want, what, qemu=None):
        """Expects this picture from look(), now or soon."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            got = error = None
            try:
                got = look()
                if got is not None and want == got:
                    return
            except QemuError as e:
                if qemu:
                    qemu.check_alive()
                error = str(e)
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if not got:
            raise Failed(f"{what}: {error or 'no picture'}")
        self.keep(want, "want")
        self.keep(got, "got")
        difference = want.difference_picture(got)
        if difference:
            self.keep(difference, "difference")
        raise Failed(f"{what}: {want.difference(got)}")

    def keep(self, picture, name):
        """Saves a picture for people."""
        self.pictures += 1
        picture.save_png(os.path.join(self.directory, f"{self.pictures}-{name}.png"))

    def finish(self):
        """Takes everything down, and returns what was wrong."""
        reasons = []

        def attempt(action):
            try:
                action()
            except (QemuError, RuntimeError, OSError, subprocess.SubprocessError) as error:
                reasons.append(str(error))

        attempt(self.clients.close)
        attempt(self.clients_let_go)
        for qemu in self.qemus:
            attempt(qemu.kill if qemu.expected_dead() else qemu.quit)
        attempt(self.servers.close)
        for process in self.processes:
            process.terminate()
            attempt(lambda process=process: process.wait(timeout=PATIENCE_S))
        attempt(self.nobody_holds_devices)
        for device in self.mdevs:
            attempt(device.remove)
        if self.case.driver:
            attempt(self.check_references)
        problems = self.log.problems(self.case.kernel_log)
        self.kernel_is_sound = not any(ALARMING.search(problem) for problem in problems)
        if problems:
            reasons.append("the kernel says: " + " | ".join(problems[:12]))
        return reasons

    def clients_let_go(self):
        """Waits until clients have dropped their pictures, which may be files of the driver's."""

        def gone():
            gc.collect()
            return not dma_bufs(os.getpid(), self.case.driver)

        try:
            wait_for("dma-bufs of clients", gone, timeout=10)
        except AssertionError:
            raise RuntimeError(f"a client that has gone still holds a dma-buf of {self.case.driver}") from None

    def nobody_holds_devices(self):
        """Fails, and kills, if a process still has a device open: a removal would wait for it."""
        killed = kill_holders("/dev/vfio/") if self.mdevs else []
        if killed:
            raise RuntimeError(f"still there, with a device open, and killed: {', '.join(killed)}")

    def check_references(self):
        """Checks that the driver is not in use any more: no device, no dma-buf."""
        driver = self.case.driver
        try:
            wait_for("its references", lambda: Modules.references(driver) == 0, timeout=10)
        except AssertionError:
            raise RuntimeError(
                f"{driver} is still in use: {Modules.references(driver)} references"
            ) from None
        self.modules.unload(driver)


__all__ = ["CASES", "Case", "Failed", "QemuError", "Test", "case", "wait_for"]
