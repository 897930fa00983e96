"""GTK's window with its defaults, and what users do with it."""

from .case import Failure, output_file, until

FULL_SCREEN, GRAB = "Control_L+Alt_L+f", "Control_L+Alt_L+g"
_VIEW_MENU = "Alt_L+v"
# The picture is below it by at least this much.
_MENU = 120, 60
_WHITE = ((255, 255),) * 3
# From the end of that menu.
_DETACH_TAB = "Up", "Up", "Return"
# GTK's own frame has a button for that, this far from the upper right corner of its content.
_CLOSE_BUTTON = -24, -22


class Tab:
    """A tab that is detached from QEMU's window, and closed, while its picture is white."""

    def __init__(self, server):
        self._server = server

    def detach(self):
        """Picks Detach Tab, as a user does."""
        self._windows = {window for window, _ in self._server.windows()}
        window = self._server.any_window()
        window.enter()
        # The menu covers this corner, and the mouse is elsewhere.
        left, top = window.box[:2]
        corner = left, top, left + _MENU[0], top + _MENU[1]
        # A compositor opens no menu for a key that has been released already.
        with self._server.held(_VIEW_MENU):
            until("the menu opens", lambda: self._server.picture().crop(corner).getextrema() != _WHITE)
        for key in _DETACH_TAB:
            self._server.press(key)
        self._wait_elsewhere(window)

    def close(self):
        """Closes its window, as a user does."""
        before = self._server.any_window()
        _, top, right, _ = before.box
        if hasattr(self._server, "weston"):
            self._server.click(right + _CLOSE_BUTTON[0], top + _CLOSE_BUTTON[1])
            self._server.move_aside()
        else:
            for window, size in self._server.windows():
                if window not in self._windows and size[0] >= before.size[0]:
                    self._server.close(window)
        self._wait_elsewhere(before)

    def _wait_elsewhere(self, before):
        """Waits until the picture is in another window, of the same size."""
        def elsewhere():
            window = self._server.any_window()
            return window and window.box != before.box and window.size == before.size

        try:
            until("the picture is in another window", elsewhere)
        except Failure as failure:
            self._server.picture().save(output_file("screen.png"))
            raise Failure(f"{failure}; it was in {before.box} (see screen.png)") from None
        self._server.move_aside()
