"""An X server without a screen, and what windows on it show."""

import os

from PIL import ImageGrab

from . import processes
from .case import Failure, output_file, until


class X11:
    """Xvfb, from the start to the end of a `with` block. There is no window manager."""

    def __init__(self, width=1280, height=1024):
        ready, write_end = os.pipe()
        with open(output_file("xvfb.log"), "ab") as log:
            try:
                self.process = processes.start(
                    ["Xvfb", "-displayfd", str(write_end), "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp", "-noreset"],
                    stdout=log, stderr=log, pass_fds=[write_end])
            except FileNotFoundError:
                raise SystemExit("Xvfb is missing: the tests need Debian's xvfb") from None
        os.close(write_end)
        # The server writes its number and the end of the line one after the other, and dies if nobody reads both.
        with open(ready, encoding="ascii") as line:
            number = line.readline().strip()
        if not number:
            raise Failure(f"Xvfb {processes.exit_text(self.process.wait(30))} (see xvfb.log)")
        self.display = f":{number}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)

    def picture(self):
        """The whole screen."""
        return ImageGrab.grab(xdisplay=self.display).convert("RGB")

    def window(self, width, height):
        """A client of the display, as tests compare it: a window that now shows a white picture of this size."""
        box = until(f"a white picture of {width}x{height}", lambda: self._white(width, height))
        return _Window(self, box)

    def _white(self, width, height):
        box = self.picture().convert("L").point(lambda value: 255 if value == 255 else 0).getbbox()
        return box if box and (box[2] - box[0], box[3] - box[1]) == (width, height) else None


class _Window:
    def __init__(self, server, box):
        self._server, self._box = server, box

    def picture(self):
        """What is on this part of the screen."""
        return self._server.picture().crop(self._box)
