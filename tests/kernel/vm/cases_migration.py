"""What QEMU saves of a display with ramfb, between the builds with the library and without."""

import os
import sys

from hardware import Mbochs
from harness import QemuError, case, wait_for
from pictures import Picture, noise

sys.path.append(os.path.join(os.path.dirname(__file__), "../../qemu/lib"))
import fw_cfg  # noqa: E402 (it is beside the display tests)

SLOT = 4
WIDTH, HEIGHT = 320, 200
STATE = "/run/tmp/state"


def start(test, mdev, binary, opengl=False, extra=()):
    # QEMU's own code starts in dma-buf mode only if a front end has OpenGL. For the library that
    # would only take time, compiling shaders six times.
    opengl = opengl or test.config["stock"] == (binary == test.config["qemu"])
    return test.qemu(
        [f"vfio-pci-nohotplug,id=vgpu0,addr={SLOT},sysfsdev={mdev.path},display=on,ramfb=on,"
         "enable-migration=on"],
        binary=binary, display="egl-headless" if opengl else "none", extra=extra,
        environment={"LD_PRELOAD": test.config["migratable"]},
    )  # fmt: skip


def migrated(qemu):
    status = qemu.qmp("query-migrate").get("status")
    if status == "failed":
        raise QemuError(f"the migration failed: {qemu.log()}")
    return status == "completed"


@case("ramfb, saved by one build and loaded by the other, both ways", driver="mbochs_rw")
def mbochs_ramfb_migration(test):
    tested, peer = test.config["qemu"], test.config["peer"]
    for seed, (saver, loader) in enumerate(((tested, peer), (peer, tested), (tested, tested)), 1):
        mdev = test.mdev("small")
        source = start(test, mdev, saver)
        data = noise(seed, WIDTH * HEIGHT * 4)
        source.write(fw_cfg.FRAMEBUFFER, data)
        test.check(fw_cfg.set_ramfb(source.qtest, source.write, WIDTH, HEIGHT, WIDTH * 4), "there is no ramfb")
        firmware = Picture.from_xrgb(WIDTH, HEIGHT, data)
        test.shows(source, firmware, f"the firmware, round {seed}")
        source.qmp("migrate", uri=f"file:{STATE}")
        wait_for("the state is saved", lambda qemu=source: migrated(qemu))
        source.quit()
        with open(STATE, "rb") as file:
            test.check(b"VFIOPCIDevice/VFIODisplay" in file.read(), "the state has no section for the display")

        target = start(test, mdev, loader, opengl=saver == loader, extra=["-incoming", "defer"])
        target.qmp("migrate-incoming", uri=f"file:{STATE}")
        wait_for("the state is loaded", lambda qemu=target: migrated(qemu))
        test.shows(target, firmware, f"the firmware after loading, round {seed}")
        # The guest continues as if nothing had happened.
        gpu = Mbochs(target, SLOT)
        gpu.mode(256, 192)
        want = gpu.draw(seed, 256, 192)
        if loader == tested and not test.config["stock"]:
            test.shows(target, want, f"the plane, round {seed}")
        gpu.off()
        target.quit()
        os.unlink(STATE)
        mdev.remove()
