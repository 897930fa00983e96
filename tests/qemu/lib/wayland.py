"""A Wayland compositor in a window of Xvfb, and what its clients' windows show."""

import os
import socket
import tempfile

from . import preload, processes
from .case import SCRATCH, Failure, output_file, until
from .x11 import HEIGHT, WIDTH, X11


# Only windows on the screen, without animations.
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
    """Weston, for a `with` block.

    With the kiosk shell, a client fills the screen, with its picture in the middle; with the
    desktop shell, it has a window with a frame of its own, at a random place, or in the upper left
    corner.
    """

    draws_pointer = True

    def __init__(self, shell="kiosk", scale=1, size=(WIDTH, HEIGHT), at_corner=False):
        super().__init__(*size)
        # The compositor's screen. There is room for the mouse beside it.
        self.size = size[0] - 64, size[1] - 64
        # A picture that an earlier compositor left behind must not be taken for this one's.
        self._directory = tempfile.mkdtemp(dir=SCRATCH)
        config = os.path.join(self._directory, "weston.ini")
        with open(config, "w", encoding="ascii") as file:
            file.write(_CONFIG)
        command = ["weston", "--backend=x11-backend.so", "--use-pixman", f"--shell={shell}-shell.so",
                   f"--config={config}", "--idle-time=0", "--socket=weston", f"--scale={scale}", f"--width={self.size[0] // scale}",
                   f"--height={self.size[1] // scale}"]
        environment = dict(os.environ, DISPLAY=self.display, XDG_RUNTIME_DIR=self._directory)
        if at_corner:
            environment["LD_PRELOAD"] = preload.build("weston_corner")
        with open(output_file("weston.log"), "ab") as log:
            try:
                self.weston = processes.start(command, stdout=log, stderr=log, env=environment)
            except FileNotFoundError:
                raise SystemExit("weston is missing: the tests need Debian's weston") from None

        def listens():
            if self.weston.poll() is not None:
                raise Failure(f"weston {processes.exit_text(self.weston.returncode)} (see weston.log)")
            # It has a name before it listens.
            with socket.socket(socket.AF_UNIX) as client:
                return client.connect_ex(os.path.join(self._directory, "weston")) == 0

        until("weston listens", listens)
        if shell == "desktop":
            # The arrow must not be where a window opens.
            self.move_aside()
            self.focus(until("weston's window", self._screen))

    def lose_focus(self):
        """Takes the keyboard's focus from the compositor, which tells its windows."""
        self.focus(_NOWHERE)

    def regain_focus(self):
        """Gives the focus back."""
        self.focus(self._screen())

    def _screen(self):
        """Returns the window that is the compositor's screen."""
        return next((window for window, size in self.windows() if size == self.size), None)

    def __exit__(self, *arguments):
        self.weston.terminate()
        self.weston.wait(30)
        super().__exit__(*arguments)

    def move_pointer(self, x, y):
        """Moves the mouse here from outside the window: the compositor may lose relative motion inside."""
        super().move_pointer(*self.corner)
        super().move_pointer(x, y)

    def move_aside(self):
        """Moves the mouse out of the windows."""
        self.move_pointer(2, self.size[1] - 16)

    @property
    def environment(self):
        """Returns the environment for programs that open windows here."""
        return {"WAYLAND_DISPLAY": "weston", "XDG_RUNTIME_DIR": self._directory, "GDK_BACKEND": "wayland",
                "SDL_VIDEODRIVER": "wayland", "SDL_VIDEO_WAYLAND_ALLOW_LIBDECOR": "0"}

    def _fits(self, width, height):
        """Makes the compositor full screen, and the client in it."""
        return True
