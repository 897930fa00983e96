"""dma-buf mode: the kernel's mbochs, unmodified and as a copy whose dma-bufs can be mapped."""

import re

from hardware import Mbochs
from harness import QemuError, case, wait_for
from pictures import Picture

SLOT = 4
EGL = "egl-headless"

STOCK_NO_SURFACE = "screendump in dma-buf mode says \"no surface\""
STOCK_NEEDS_GL = "no display without OpenGL in dma-buf mode"


def device(mdev, number=0, **properties):
    more = "".join(f",{key}={value}" for key, value in properties.items())
    return f"vfio-pci,id=vgpu{number},addr={SLOT + number},sysfsdev={mdev.path},display=on{more}"


def start(test, kind="medium", display="none", extra=(), environment=None, **properties):
    """One mbochs device in a QEMU."""
    qemu = test.qemu([device(test.mdev(kind), **properties)], display=display, extra=extra, environment=environment)
    return qemu, Mbochs(qemu, SLOT)


def quiet(test, qemu):
    """Checks that a healthy device causes no messages."""
    test.equal(qemu.messages(), [], "what QEMU said")


def modes(test, qemu, gpu, sizes):
    """Sets modes, off and on. Each must show although its first query fails with ENOMEM."""
    for seed, (width, height) in enumerate((*sizes, sizes[0])):
        gpu.mode(width, height)
        want = gpu.draw(seed, width, height)
        test.shows(qemu, want, f"{width}x{height}")
    gpu.off()
    wait_for(
        "the old picture goes when the plane is off",
        lambda: want != qemu.screendump(),
    )
    width, height = sizes[1]
    gpu.mode(width, height)
    test.shows(qemu, gpu.draw(9, width, height), "on again")
    # In place, without a mode set or any other event.
    test.shows(qemu, gpu.draw(10, width, height), "drawn in place")
    quiet(test, qemu)


@case("mode sets without OpenGL", driver="mbochs_rw", stock=STOCK_NEEDS_GL)
def mbochs_modes(test):
    modes(test, *start(test), ((640, 480), (1024, 768), (1280, 720)))


@case("mode sets with OpenGL", driver="mbochs_rw", stock=STOCK_NO_SURFACE)
def mbochs_modes_egl(test):
    # Software OpenGL in an emulated machine takes seconds for each million pixels.
    modes(test, *start(test, display=EGL), ((320, 240), (256, 192), (128, 96)))


def whole_pages(test, qemu, gpu):
    """Checks 800x600: the last page of the buffer is incomplete, and cannot be mapped."""
    gpu.mode(800, 600)
    want = gpu.draw(1, 800, 600)
    unreachable = 800 * 600 * 4 % 4096 // 4
    reachable = (800 * 600 - unreachable) * 3
    # They are black, not what another process left there.
    want = Picture(800, 600, want.rgb[:reachable] + bytes(unreachable * 3))
    test.shows(qemu, want, "800x600")


@case("a size that is not whole pages, without OpenGL", driver="mbochs_rw", stock=STOCK_NEEDS_GL)
def mbochs_800x600(test):
    whole_pages(test, *start(test))


@case("a size that is not whole pages, with OpenGL", driver="mbochs_rw", stock=STOCK_NO_SURFACE)
def mbochs_800x600_egl(test):
    whole_pages(test, *start(test, display=EGL))


def flips(test, qemu, gpu, count, rounds):
    """Flips among this many buffers. Each is fetched from the driver once."""
    width, height = 320, 240
    gpu.mode(width, height)
    pictures = [
        gpu.draw(number, width, height, offset=number * width * height * 4)
        for number in range(count)
    ]
    for turn in range(rounds):
        for number, picture in enumerate(pictures):
            gpu.pan(0, number * height)
            test.shows(qemu, picture, f"buffer {number} in round {turn}")
    quiet(test, qemu)


@case("page flips among 12 buffers", driver="mbochs_rw", stock=STOCK_NEEDS_GL)
def mbochs_flips(test):
    qemu, gpu = start(test)
    flips(test, qemu, gpu, 12, 2)
    test.equal(len(qemu.dma_bufs("mbochs_rw")), 12, "dma-bufs held")


@case("page flips with OpenGL", driver="mbochs_rw", stock=STOCK_NO_SURFACE)
def mbochs_flips_egl(test):
    qemu, gpu = start(test, display=EGL)
    flips(test, qemu, gpu, 6, 2)
    test.equal(len(qemu.dma_bufs("mbochs_rw")), 6, "dma-bufs held")


@case("more buffers than a pool holds of others, there and back", driver="mbochs_rw",
      stock=STOCK_NEEDS_GL)  # fmt: skip
def mbochs_many_buffers(test):
    # mbochs must not be asked again for a dropped buffer (see README.md).
    qemu, gpu = start(test)
    flips(test, qemu, gpu, 36, 2)
    test.equal(len(qemu.dma_bufs("mbochs_rw")), 36, "dma-bufs held")


@case("so many buffers that some must go, and back to those", driver="mbochs_rw", stock=STOCK_NEEDS_GL)
def mbochs_too_many_buffers(test):
    qemu, gpu = start(test)
    side, rows, count = 64, 16, 300
    gpu.mode(side, side)
    # Each begins a page after the previous one.
    everything = gpu.draw(1, side, side + rows * count)

    def at(number):
        start = rows * number * side * 3
        return Picture(side, side, everything.rgb[start : start + side * side * 3])

    for number in range(count):
        gpu.pan(0, rows * number)
        test.shows(qemu, at(number), f"buffer {number}")
    held = len(qemu.dma_bufs("mbochs_rw"))
    test.check(200 < held < count, f"{held} dma-bufs are held")
    quiet(test, qemu)
    for number in range(5):
        gpu.pan(0, rows * number)
        for _ in range(5):
            qemu.screendump()
    said = qemu.messages()
    test.equal(len(said), 1, f"messages ({said})")
    test.check(re.search(r"GET_GFX_DMABUF of id \d+ is not called", said[0]), said[0])
    for number in (count - 1, 100):
        gpu.pan(0, rows * number)
        test.shows(qemu, at(number), f"buffer {number} again")


# The driver says so each time that it is asked, which may be often in five seconds.
@case("scrolling by X and Y, and an offset that cannot be exported", driver="mbochs_rw",
      stock=STOCK_NEEDS_GL, kernel_log=[r"^mbochs_dmabuf_export: \d+ callbacks suppressed"])  # fmt: skip
def mbochs_pan(test):
    qemu, gpu = start(test)
    width, height, virtual = 640, 480, 2048
    gpu.mode(width, height, virtual_width=virtual)
    for seed, (x, y) in enumerate(((0, 0), (1024, 0), (0, 480), (1024, 480))):
        gpu.pan(x, y)
        offset = (y * virtual + x) * 4
        want = gpu.draw(seed, width, height, stride=virtual * 4, offset=offset)
        test.shows(qemu, want, f"at {x},{y}")
    quiet(test, qemu)
    # The driver answers the query, and refuses the dma-buf.
    gpu.pan(1, 0)
    wait_for("a message about the dma-buf", lambda: (qemu.screendump(), qemu.messages())[1])
    for _ in range(5):
        qemu.screendump()
    said = qemu.messages()
    test.equal(len(said), 1, f"messages ({said})")
    test.check(re.search(r"GET_GFX_DMABUF of id \d+.*Invalid argument", said[0]), said[0])
    test.check(test.mdevs[0].uuid in said[0], said[0])
    gpu.pan(1024, 480)
    test.shows(qemu, want, "a good offset again")


@case("modes that are none: no picture, no message, no harm", driver="mbochs_rw",
      stock=STOCK_NEEDS_GL)  # fmt: skip
def mbochs_bad_modes(test):
    qemu, gpu = start(test, kind="small")
    gpu.mode(320, 240)
    good = gpu.draw(1, 320, 240)
    test.shows(qemu, good, "a good mode")
    for arguments in ((640, 480, 0, 0, 0, 16), (63, 480), (2000, 2000), (640, 480, 0, 0, 5000)):
        gpu.mode(*arguments)
        wait_for(f"no picture of {arguments}", lambda: good != qemu.screendump())
        gpu.mode(320, 240)
        test.shows(qemu, good, f"a good mode after {arguments}")
    quiet(test, qemu)


def unmappable(test, display):
    """Unmodified mbochs, whose dma-bufs only a GPU can show: one message, not one per buffer."""
    qemu, gpu = start(test, display=display)

    def look():
        try:
            return qemu.screendump()
        except QemuError:
            # There may be nothing to dump, but QEMU must answer.
            qemu.check_alive()
            return None

    for number, (width, height) in enumerate(((640, 480), (1024, 768)), 1):
        gpu.mode(width, height)
        gpu.draw(number, width, height)
        wait_for("a message", lambda: look() and None or qemu.messages())
        for _ in range(5):
            picture = look()
        # With OpenGL, EGL's reason comes first. Messages are not repeated for a while.
        said = [message for message in qemu.messages() if "EGL import" not in message]
        test.equal(len(said), 1, f"messages ({said})")
        test.check(re.search(r"dma-buf.*mapped", said[-1]), said[-1])
        gpu.off()
    if picture:
        test.keep(picture, "message")
        test.check(not picture.is_plain(), "the screen says nothing")
    return said, picture


@case("dma-bufs that cannot be mapped, without OpenGL", driver="mbochs", stock=STOCK_NEEDS_GL)
def mbochs_unmappable(test):
    said, picture = unmappable(test, "none")
    test.check(test.mdevs[0].uuid in said[0], f"the message does not name the device: {said[0]}")
    test.check(picture, "the screen says nothing")


# Without patch ui/0003, which the stock build has, too, llvmpipe ends with SIGSEGV.
@case("dma-bufs that cannot be mapped, with software OpenGL", driver="mbochs")
def mbochs_unmappable_egl(test):
    unmappable(test, EGL)


def preferred(block):
    """Returns the preferred mode of an EDID block; None while the link is down."""
    if not block.startswith(bytes.fromhex("00ffffffffffff00")) or sum(block[:128]) % 256:
        return None
    width = block[56] | (block[58] & 0xF0) << 4
    height = block[59] | (block[61] & 0xF0) << 4
    return width, height


def wait_for_mode(gpu, want):
    wait_for(
        f"an EDID that prefers {want}",
        lambda: preferred(gpu.edid()) == want,
    )


@case("EDID: at start, of a window that changes, within the device's limits", driver="mbochs_rw",
      stock=STOCK_NEEDS_GL)  # fmt: skip
def mbochs_edid(test):
    # The small type can do 800x600, the medium one 1920x1440, and the large one everything.
    qemu, gpu = start(test, xres=1280, yres=800, extra=["-vnc", "unix:/run/tmp/vnc"])
    wait_for_mode(gpu, (1280, 800))
    vnc = test.vnc("/run/tmp/vnc")
    vnc.picture()
    for width, height in ((1024, 768), (1600, 900)):
        vnc.resize(width, height)
        wait_for_mode(gpu, (width, height))
    vnc.resize(2560, 1600)
    wait_for_mode(gpu, (1920, 1440))


@case("EDID: more than the device can do", driver="mbochs_rw", stock=STOCK_NEEDS_GL)
def mbochs_edid_limits(test):
    _, gpu = start(test, kind="small", xres=1280, yres=800)
    wait_for_mode(gpu, (800, 600))


@case("system_reset: what the device shows is shown again", driver="mbochs_rw",
      stock=STOCK_NEEDS_GL)  # fmt: skip
def mbochs_reset(test):
    qemu, gpu = start(test)
    for turn in range(4):
        gpu.mode(640, 480)
        want = gpu.draw(turn, 640, 480)
        test.shows(qemu, want, f"before reset {turn}")
        qemu.qmp("system_reset")
        # mbochs has no reset that QEMU could use: its mode and its picture stay.
        test.shows(qemu, want, f"after reset {turn}")
        gpu = Mbochs(qemu, SLOT)
    gpu.mode(1024, 768)
    test.shows(qemu, gpu.draw(9, 1024, 768), "another mode")
    gpu.mode(640, 480)
    test.shows(qemu, gpu.draw(10, 640, 480), "the first mode again")
    quiet(test, qemu)


@case("two devices at once", driver="mbochs_rw", stock=STOCK_NEEDS_GL)
def mbochs_two(test):
    mdevs = [test.mdev("small"), test.mdev("medium")]
    qemu = test.qemu([device(mdev, number) for number, mdev in enumerate(mdevs)])
    gpus = [Mbochs(qemu, SLOT + number, number) for number in range(2)]
    for turn in range(2):
        want = []
        for number, (gpu, size) in enumerate(zip(gpus, ((640, 480), (800, 608)))):
            gpu.mode(*size)
            want.append(gpu.draw(10 * turn + number, *size))
        for number, picture in enumerate(want):
            test.shows(qemu, picture, f"vgpu{number} in round {turn}", device=f"vgpu{number}")
    quiet(test, qemu)


@case("the device is removed while QEMU shows it", driver="mbochs_rw", stock=STOCK_NEEDS_GL)
def mbochs_removed(test):
    mdev = test.mdev("medium")
    qemu = test.qemu([device(mdev)])
    gpu = Mbochs(qemu, SLOT)
    gpu.mode(640, 480)
    test.shows(qemu, gpu.draw(1, 640, 480), "before")
    # mbochs cannot ask QEMU for the device: the kernel waits until it is released.
    mdev.start_removal()
    test.check(not mdev.finish_removal(3), "the device went although QEMU has it open")
    test.shows(qemu, gpu.draw(2, 640, 480), "meanwhile")
    qemu.quit()
    test.check(mdev.finish_removal(), "QEMU has quit, and the device is still there")


@case("QEMU is killed and started again on the same device", driver="mbochs_rw",
      stock=STOCK_NEEDS_GL)  # fmt: skip
def mbochs_killed(test):
    mdev = test.mdev("medium")
    for turn in range(2):
        qemu = test.qemu([device(mdev)])
        gpu = Mbochs(qemu, SLOT)
        gpu.mode(640, 480)
        test.shows(qemu, gpu.draw(turn, 640, 480), f"run {turn}")
        qemu.kill()


@case("plugged in and out while QEMU runs", driver="mbochs_rw", stock=STOCK_NEEDS_GL)
def mbochs_hotplug(test):
    qemu = test.qemu([])
    for turn in range(2):
        mdev = test.mdev("medium")
        qemu.qmp("device_add", driver="vfio-pci", id="vgpu0", addr=f"{SLOT:#x}", bus="pci.0",
                 sysfsdev=mdev.path, display="on")  # fmt: skip
        gpu = Mbochs(qemu, SLOT)
        gpu.mode(640, 480)
        test.shows(qemu, gpu.draw(turn, 640, 480), f"plugged in, round {turn}", device="vgpu0")
        qemu.qmp("device_del", id="vgpu0")
        # The guest agrees, as its ACPI code would.
        qemu.qtest(f"outl 0xae08 {1 << SLOT:#x}")
        wait_for("QEMU closes the device", lambda: not qemu.open_files("vfio-device"))
        test.equal(qemu.dma_bufs("mbochs_rw"), set(), "dma-bufs held after unplugging")
        wait_for("QEMU closes its group", lambda: not qemu.open_files("/dev/vfio/"))
        mdev.remove()
    quiet(test, qemu)


def firmware(test, display, width, height):
    """Checks what SeaBIOS draws: the screen shows what is in video memory."""
    log = "/run/tmp/firmware"
    qemu = test.qemu(
        # Only preferred: if the link is not up in time, the firmware takes 1024x768.
        [device(test.mdev("medium"), romfile="vgabios-bochs-display.bin", xres=width, yres=height),
         "isa-debugcon,iobase=0x402,chardev=firmware"],
        display=display, accel="tcg", extra=["-chardev", f"file,id=firmware,path={log}"],
    )  # fmt: skip

    def finished():
        """Returns whether the firmware has said its last words; only the end of that line changes then."""
        qemu.check_alive()
        with open(log, encoding="ascii", errors="replace") as file:
            return "No bootable device" in file.read()

    def video_memory(size):
        """Returns the picture as the guest's CPU sees it."""
        devices = (device for bus in qemu.qmp("query-pci") for device in bus["devices"])
        regions = next(device["regions"] for device in devices if device["qdev_id"] == "vgpu0")
        address = next(region["address"] for region in regions if region["bar"] == 0)
        path = "/run/tmp/vram"
        qemu.qmp("pmemsave", val=address, size=size, filename=path)
        with open(path, "rb") as file:
            return file.read()

    def text():
        """Returns the firmware's text, once it is all on the screen."""
        picture = qemu.screendump()
        memory = video_memory(picture.width * picture.height * 4)
        want = Picture.from_xrgb(picture.width, picture.height, memory)
        lit = len(want.rgb) - want.rgb.count(0)
        return want if lit > 3000 and want == picture else None

    # Each check costs more than what the firmware does in between.
    wait_for("the firmware finds nothing to boot", finished, timeout=600)
    want = wait_for("the screen shows the firmware's text", text)
    test.keep(want, "firmware")
    quiet(test, qemu)


@case("SeaBIOS draws, without OpenGL", driver="mbochs_rw", stock=STOCK_NEEDS_GL)
def mbochs_firmware(test):
    firmware(test, "none", 1024, 768)

