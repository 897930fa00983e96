"""One test: where its files are, what it says, and how it waits."""

import atexit
import os
import shutil
import sys
import tempfile
import time
import traceback


# How a test ends that could not be run.
SKIPPED = 77


class Failure(Exception):
    """The test failed; the message says what was expected and what came."""


def _environment(name):
    try:
        return os.environ[name]
    except KeyError:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {name} is not set; run it by tests/qemu/check")


QEMU = _environment("VFIO_DPY_TEST_QEMU")
VGPU = _environment("VFIO_DPY_TEST_VGPU")
# Where the libraries of tests/quirks are.
QUIRKS = _environment("VFIO_DPY_TEST_QUIRKS")
# "enabled": the library; "disabled": QEMU's own C.
VARIANT = _environment("VFIO_DPY_TEST_VARIANT")
OUTPUT = _environment("VFIO_DPY_TEST_OUTPUT")
DEBUG = bool(os.environ.get("VFIO_DPY_TEST_DEBUG"))
# The kernel's vfio for QEMU, if vGPUs are to be devices of the kernel: see kernel_vfio.py.
KERNEL = os.environ.get("VFIO_DPY_TEST_KERNEL")
# For all displays, before those of the test.
OPTIONS = os.environ.get("VFIO_DPY_TEST_OPTIONS")
# How many times as long things may take, for a machine that is emulated.
PATIENCE = float(os.environ.get("VFIO_DPY_TEST_PATIENCE", 1))

# For sockets, whose paths must be short; the same name in each run of a test would not let runs go side by side.
SCRATCH = tempfile.mkdtemp(prefix="vfio-dpy-test-")
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)


def output_file(name):
    """Path of a file that a failing test leaves behind."""
    return os.path.join(OUTPUT, name)


def filtered(text):
    """The text without what differs from run to run."""
    for varying, constant in ((SCRATCH + "/", ""), (OUTPUT, "OUTPUT"), (QEMU, "QEMU"), (os.path.basename(QEMU), "qemu")):
        text = text.replace(varying, constant)
    return text


def say(text):
    """A line of the test's result, which the .out file expects."""
    print(filtered(str(text)), flush=True)


def debug(text):
    """A line for `check -d`."""
    if DEBUG:
        print(text, file=sys.stderr, flush=True)


def until(what, condition, seconds=20):
    """Waits for condition() to be true, and returns its value. No time is part of a result: it only ends what hangs."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {seconds:g} s (the last value was {value!r})")
        time.sleep(0.01)


def expect(what, expected, actual):
    """Says that it is as expected, or fails."""
    if actual != expected:
        raise Failure(f"{what}: expected {expected!r}, got {actual!r}")
    say(f"{what}: {actual}")


def skip(why):
    """Ends the test: this machine does not have what it needs. `check` says so."""
    say(f"SKIPPED: {why}")
    sys.exit(SKIPPED)


def attempt(what, action, *errors):
    """Says how something that should fail did."""
    try:
        result = action()
    except errors as error:
        say(f"{what}: {error}")
    else:
        raise Failure(f"{what}: expected an error, got {result!r}")


def _on_failure(kind, error, trace):
    if issubclass(kind, Failure):
        say(f"FAILED: {error}")
    else:
        say(f"FAILED: {kind.__name__}: {error}")
        traceback.print_exception(kind, error, trace)


sys.excepthook = _on_failure
