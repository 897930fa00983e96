"""A Wayland compositor whose screen is a window of an X server without one, and what windows on it show."""

import os
import tempfile

from . import processes
from .case import SCRATCH, Failure, output_file, until
from .x11 import HEIGHT, WIDTH, X11


class Wayland(X11):
    """Weston, from the start to the end of a `with` block. A client fills its screen, and its picture is in the middle."""

    def __init__(self):
        super().__init__()
        # What a compositor before us left behind must not look like ours.
        self._directory = tempfile.mkdtemp(dir=SCRATCH)
        # There is room beside it, for the mouse.
        command = ["weston", "--backend=x11-backend.so", "--use-pixman", "--shell=kiosk-shell.so", "--no-config", "--idle-time=0",
                   "--socket=weston", f"--width={WIDTH - 64}", f"--height={HEIGHT - 64}"]
        environment = dict(os.environ, DISPLAY=self.display, XDG_RUNTIME_DIR=self._directory)
        with open(output_file("weston.log"), "ab") as log:
            try:
                self._weston = processes.start(command, stdout=log, stderr=log, env=environment)
            except FileNotFoundError:
                raise SystemExit("weston is missing: the tests need Debian's weston") from None

        def listens():
            if self._weston.poll() is not None:
                raise Failure(f"weston {processes.exit_text(self._weston.returncode)} (see weston.log)")
            return os.path.exists(os.path.join(self._directory, "weston"))

        until("weston listens", listens)

    def __exit__(self, *arguments):
        self._weston.terminate()
        self._weston.wait(30)
        super().__exit__(*arguments)

    @property
    def environment(self):
        """What a program needs to open windows here."""
        return {"WAYLAND_DISPLAY": "weston", "XDG_RUNTIME_DIR": self._directory, "GDK_BACKEND": "wayland"}

    def _fits(self, width, height):
        """The compositor fills the screen with its window, and the client fills that."""
        return True
