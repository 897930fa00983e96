"""A Wayland compositor whose screen is a window of an X server without one, and what windows on it show."""

import os
import tempfile

from . import processes
from .case import SCRATCH, Failure, output_file, until
from .x11 import HEIGHT, WIDTH, X11


# Nothing on the screen but windows, and each at once.
_CONFIG = """[shell]
background-color=0xff304050
panel-position=none
startup-animation=none
close-animation=none

[keyboard]
repeat-rate=0
"""

_NOWHERE = 0


class Wayland(X11):
    """Weston, from the start to the end of a `with` block. With the shell for kiosks a client fills its screen, and its picture is in
    the middle; with that for desktops it has a window with a frame of its own."""

    draws_pointer = True

    def __init__(self, shell="kiosk", scale=1, size=(WIDTH, HEIGHT)):
        super().__init__(*size)
        # The compositor's screen; there is room beside it, for the mouse.
        self.size = size[0] - 64, size[1] - 64
        # What a compositor before us left behind must not look like ours.
        self._directory = tempfile.mkdtemp(dir=SCRATCH)
        config = os.path.join(self._directory, "weston.ini")
        with open(config, "w", encoding="ascii") as file:
            file.write(_CONFIG)
        command = ["weston", "--backend=x11-backend.so", "--use-pixman", f"--shell={shell}-shell.so",
                   f"--config={config}", "--idle-time=0", "--socket=weston", f"--scale={scale}", f"--width={self.size[0] // scale}",
                   f"--height={self.size[1] // scale}"]
        environment = dict(os.environ, DISPLAY=self.display, XDG_RUNTIME_DIR=self._directory)
        with open(output_file("weston.log"), "ab") as log:
            try:
                self.weston = processes.start(command, stdout=log, stderr=log, env=environment)
            except FileNotFoundError:
                raise SystemExit("weston is missing: the tests need Debian's weston") from None

        def listens():
            if self.weston.poll() is not None:
                raise Failure(f"weston {processes.exit_text(self.weston.returncode)} (see weston.log)")
            return os.path.exists(os.path.join(self._directory, "weston"))

        until("weston listens", listens)
        if shell == "desktop":
            # Its arrow is not to be where a window opens.
            self.move_aside()
            self.focus(until("weston's window", self._screen))

    def lose_focus(self):
        """The user's keys go elsewhere, and the compositor tells its windows."""
        self.focus(_NOWHERE)

    def regain_focus(self):
        """They come back."""
        self.focus(self._screen())

    def _screen(self):
        """The window that is the compositor's screen."""
        return next((window for window, size in self.windows() if size == self.size), None)

    def __exit__(self, *arguments):
        self.weston.terminate()
        self.weston.wait(30)
        super().__exit__(*arguments)

    def move_pointer(self, x, y):
        """The user moves the mouse here, from outside: the compositor adds up what it moves within its window, and may lose some."""
        super().move_pointer(*self.corner)
        super().move_pointer(x, y)

    def move_aside(self):
        """The user moves the mouse out of the windows."""
        self.move_pointer(2, self.size[1] - 16)

    @property
    def environment(self):
        """What a program needs to open windows here."""
        return {"WAYLAND_DISPLAY": "weston", "XDG_RUNTIME_DIR": self._directory, "GDK_BACKEND": "wayland"}

    def _fits(self, width, height):
        """The compositor fills the screen with its window, and the client fills that."""
        return True
