"""What the guest is told about its monitor."""

from .case import expect, until


def wait_monitor(what, vgpu, width, height):
    """The guest sees a monitor of this size, with the link up."""
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
