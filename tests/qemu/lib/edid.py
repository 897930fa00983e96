"""What the guest reads of its monitor."""

import time

from .case import Failure, expect, say, until

# Front ends pass on a window's size after a second without a change.
_DELAY = 1


def keeps_monitor(what, vgpu, width, height):
    """Waits until the guest sees a monitor of this size, and checks for a while that it stays."""
    wait_monitor(what, vgpu, width, height)
    end = time.monotonic() + 2 * _DELAY
    while time.monotonic() < end:
        mode = vgpu.ask("edid")["preferred"] or {}
        if (mode.get("width"), mode.get("height")) != (width, height):
            raise Failure(f"{what}: after a moment the monitor is {mode}")
        time.sleep(0.02)
    until(f"{what}: the link is up", lambda: vgpu.ask("edid")["link_state"] == "up")
    say("    and keeps it")


def wait_monitor(what, vgpu, width, height):
    """Waits until the guest sees a monitor of this size, with the link up."""
    def settled():
        edid = vgpu.ask("edid")
        mode = edid["preferred"] or {}
        return (edid["link_state"], mode.get("width"), mode.get("height")) == ("up", width, height)

    until(f"{what}: a monitor of {width}x{height}", settled)
    edid = vgpu.ask("edid")
    block = bytes.fromhex(edid["hex"])
    expect(f"{what}: preferred mode", f"{width}x{height}", "{width}x{height}".format(**edid["preferred"]))
    expect("    length, checksums and extensions agree", True,
           len(block) == edid["size"] == 128 * (1 + block[126])
           and all(sum(block[at:at + 128]) % 256 == 0 for at in range(0, len(block), 128)))
