"""One test: its files, its output, and how it waits."""

import atexit
import os
import shutil
import sys
import tempfile
import time
import traceback


# The exit status of a test that could not be run.
SKIPPED = 77


class Failure(Exception):
    """The test failed; the message says what was expected and what happened."""


def _environment(name):
    try:
        return os.environ[name]
    except KeyError:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {name} is not set; run it by tests/qemu/check")


QEMU = _environment("VFIO_DPY_TEST_QEMU")
VGPU = _environment("VFIO_DPY_TEST_VGPU")
# The directory with the libraries of tests/quirks.
QUIRKS = _environment("VFIO_DPY_TEST_QUIRKS")
# "enabled": the library; "disabled": QEMU's own display code.
VARIANT = _environment("VFIO_DPY_TEST_VARIANT")
OUTPUT = _environment("VFIO_DPY_TEST_OUTPUT")
DEBUG = bool(os.environ.get("VFIO_DPY_TEST_DEBUG"))
# The library that plays the kernel's vfio, for vGPUs as devices of the kernel: kernel_vfio.py.
KERNEL = os.environ.get("VFIO_DPY_TEST_KERNEL")
# Options for all displays, which come before those of the test.
OPTIONS = os.environ.get("VFIO_DPY_TEST_OPTIONS")
# Factor for all deadlines, for a machine that is emulated.
PATIENCE = float(os.environ.get("VFIO_DPY_TEST_PATIENCE", 1))

# For sockets, whose paths must be short. The name is random, so that runs can go side by side.
SCRATCH = tempfile.mkdtemp(prefix="vfio-dpy-test-")
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)


def output_file(name):
    """Returns the path of a file that a failing test leaves behind."""
    return os.path.join(OUTPUT, name)


def filtered(text):
    """Returns the text without what differs from run to run."""
    for varying, constant in ((SCRATCH + "/", ""), (OUTPUT, "OUTPUT"), (QEMU, "QEMU"), (os.path.basename(QEMU), "qemu")):
        text = text.replace(varying, constant)
    return text


def say(text):
    """Prints a line of the test's result, which the .out file expects."""
    print(filtered(str(text)), flush=True)


def debug(text):
    """Prints a line for `check -d`."""
    if DEBUG:
        print(text, file=sys.stderr, flush=True)


def until(what, condition, seconds=20):
    """Waits for condition() to be true, and returns its value. The deadline only ends what hangs."""
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
    """Prints that a value is as expected, or fails."""
    if actual != expected:
        raise Failure(f"{what}: expected {expected!r}, got {actual!r}")
    say(f"{what}: {actual}")


def skip(why):
    """Ends the test, since this machine lacks what it needs. `check` says so."""
    say(f"SKIPPED: {why}")
    sys.exit(SKIPPED)


def attempt(what, action, *errors):
    """Prints how something failed that should."""
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
