"""Scripts: the steps of a walk, one per line.

Any subset of the lines after the first can be played, too, so that scripts can be reduced.

    setup screen=none beside=spice server=x11 personalities=gvt,nvidia second=bochs-display bus=bridge
          sealed=yes thread=on events=no migration=refused           (in one line)
    vgpu0 mode 800x600 buffers=3       a command of the vGPU's control socket
    vgpu0 die                          its process ends as by a crash
    qemu reset|bus-reset|freeze|stop|cont|screendump|info|save|savevm|unplug NAME|plug NAME
    open NAME KIND [CONSOLE]           a client: vnc, dbus, spice; silent (a VNC client that reads
                                       nothing), deaf (a D-Bus client that does not answer), mute or
                                       nameless (D-Bus clients that register, and are silent)
    close NAME, hold NAME, release NAME, size NAME WxH, keys NAME, forget NAME
                                       "window" is the one of GTK or SDL
    zoom window, full window           GTK's picture gets larger; is on the full screen, and back
    pause MS
    quiet                              devices tell the truth again; everything is checked
"""

import itertools
import random

_PERSONALITIES = "gvt", "mbochs", "nvidia", "mdpy"
_MODES = {"dma-buf": {"gvt", "mbochs"}, "region": {"nvidia", "mdpy"}}
_FORMATS = "XR24", "XR24", "XR24", "AR24", "XB24", "RG16", "XR30"
# The clients that each -display has besides VNC, as often as they are to be chosen.
_DBUS = "dbus", "dbus", "deaf", "mute", "nameless"
_SPICE = ("spice",)
SCREENS = {"none": (), "egl-headless": (), "dbus,p2p=yes": _DBUS, "dbus,p2p=yes,gl=on": _DBUS, "spice": _SPICE,
           "spice-gl": _SPICE, "sdl,gl=off": (), "sdl,gl=on": (), "gtk,gl=off": (), "gtk,gl=on": ()}
_CALLS = ("query", "query", "get", "get", "region_info", "region_read", "region_write", "edid_read", "edid_write", "reset", "device_info",
          "irq_info", "set_irqs", "dma", "any")
# Descriptors to send in place of memory, or beside it.
_DESCRIPTORS = "tcp", "linger", "pipe", "memfd", "short", "hugetlb", "shrink-then-seal", "/dev/null", "/dev/zero", "/"
_ERRNOS = "EIO", "ENOMEM", "EINVAL", "ENOENT", "EBUSY", "EAGAIN", "ENODEV", "65535"
_FIELDS = {
    "query": ("size", "width", "height", "stride", "drm_format", "drm_format_mod", "x_pos", "y_pos", "region_index", "dmabuf_id", "argsz",
              "flags", "drm_plane_type", "x_hot", "y_hot"),
    "region_info": ("argsz", "flags", "cap_offset", "size", "offset"),
    "get": ("argsz", "flags", "dmabuf_id", "reserved"),
    "device_info": ("argsz", "flags", "num_regions", "num_irqs"),
    "irq_info": ("argsz", "flags", "count", "cap_offset", "cap_id", "cap_next"),
    "region_read": ("data",),
    "edid_read": ("data",),
}
# Bytes of a vGPU's memory.
MEMORY = 16 << 20
_NUMBERS = "0", "1", "0x7fffffff", "0xffffffff", "0x80000000", "100000", "4096", "77"
_SECOND = "bochs-display", "virtio-gpu-pci", "none"


def read(path):
    """Returns the lines of a script in a file."""
    with open(path, encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file if line.strip() and not line.startswith("#")]


def random_walk(seed, steps):
    """Returns the lines of a walk: the same for the same seed."""
    return _Walk(random.Random(seed)).lines(steps)


def covering():
    """Returns the first seeds that cover each front end in each mode, with the thread and without."""
    missing = {(screen, what) for screen in SCREENS for what in (*_MODES, "thread=on", "thread=off")}
    seeds = []
    for seed in itertools.count(1):
        setup = dict(word.split("=", 1) for word in next(random_walk(seed, 0)).split()[1:])
        has = {mode for mode, personalities in _MODES.items() if personalities & set(setup["personalities"].split(","))}
        found = {(setup["screen"], what) for what in has | {f"thread={setup['thread']}"}} & missing
        if found:
            seeds.append(seed)
            missing -= found
        if not missing:
            return seeds


class _Walk:
    def __init__(self, chance):
        self._chance = chance
        self._personalities = [chance.choice(_PERSONALITIES) for _ in range(chance.choice((1, 1, 2)))]
        self._screen = chance.choice(list(SCREENS))
        self._clients = SCREENS[self._screen]
        self._beside = "none"
        if "spice" not in self._clients and chance.random() < 0.3:
            self._beside = "spice"
            self._clients += _SPICE

    def lines(self, steps):
        chance = self._chance
        yield (f"setup screen={self._screen} beside={self._beside} server={chance.choice(('x11', 'wayland'))} "
               f"personalities={','.join(self._personalities)} second={chance.choice(_SECOND)} bus={chance.choice(('root', 'bridge'))} "
               f"sealed={chance.choice(('yes', 'yes', 'no'))} thread={chance.choice(('on', 'on', 'off'))} "
               f"events={chance.choice(('yes', 'no'))} migration={chance.choice(('refused', 'allowed'))}")
        yield "quiet"
        for step in range(1, steps + 1):
            yield from self._step()
            if step % 25 == 0:
                yield "quiet"
        yield "quiet"

    def _vgpu(self):
        return f"vgpu{self._chance.randrange(len(self._personalities))}"

    def _client(self):
        return f"c{self._chance.randrange(5)}"

    def _step(self):
        # Drawing is frequent, ending something rare.
        kinds = {self._draw: 12, self._mode: 4, self._scene: 3, self._away: 2, self._fault: 8, self._open: 5, self._client_acts: 6,
                 self._qemu: 6, self._device: 1, self._pause: 4}
        return self._chance.choices(list(kinds), kinds.values())[0]().splitlines()

    def _mode(self):
        chance = self._chance
        width, height = chance.choice(((640, 480), (800, 600), (1024, 768), (chance.randrange(64, 2000), chance.randrange(64, 1200))))
        return f"{self._vgpu()} mode {width}x{height} fourcc={chance.choice(_FORMATS)} buffers={chance.randrange(1, 5)}"

    def _draw(self):
        chance = self._chance
        what = chance.choice((
            f"rect {chance.randrange(600)},{chance.randrange(400)},{chance.randrange(1, 300)}x{chance.randrange(1, 200)} "
            f"{chance.randrange(1 << 24):06x}",
            f"pattern {chance.choice(('gradient', 'bars', 'checker', 'noise', 'text'))} seed={chance.randrange(100)}",
            "flip", "flip", "plane off", "plane on", "plane on",
            f"cursor {chance.choice((64, 128, 256))}x64 {chance.randrange(-50, 700)},{chance.randrange(-50, 500)}",
            f"cursor move {chance.randrange(-50, 700)},{chance.randrange(-50, 500)}", "cursor off",
            f"cursor color {chance.randrange(1 << 32):08x}", "punch", f"shrink-buffer {chance.choice((0, 4096, MEMORY))}",
            f"on-reset {chance.choice(('keep', 'off', 'guest'))}", "guest"))
        return f"{self._vgpu()} {what}"

    def _scene(self):
        chance = self._chance
        return (f"{self._vgpu()} scene {chance.choice(('flips', 'block', 'typing', 'video', 'cursor', 'random'))} "
                f"rate={chance.choice((10, 60, 250))} seconds={chance.choice((1, 3))} seed={chance.randrange(100)}")

    def _away(self):
        # A plane that is off for less than 0.3 s leaves its picture.
        chance, vgpu = self._chance, self._vgpu()
        return f"{vgpu} plane off\npause {chance.choice((5, 100, 290, 310, 600))}\n{chance.choice((self._mode(), f'{vgpu} plane on'))}"

    def _fault(self):
        chance = self._chance
        call = chance.choice(_CALLS)
        kinds = [f"errno {chance.choice(_ERRNOS)}", f"delay {chance.choice((20, 150, 900))}", f"size {chance.choice((-8, -1, 1, 64))}", "no-fd",
                 "silence", "extra-fd", f"extra-fd={chance.choice(_DESCRIPTORS)}", f"chatter {chance.choice((1, 20, 1000))}"]
        if call in _FIELDS:
            kinds += [f"set {chance.choice(_FIELDS[call])}={chance.choice(_NUMBERS)}"] * 8
        if call in ("get", "region_info"):
            kinds += [f"fd={chance.choice(_DESCRIPTORS)}"] * 4
        if call == "get":
            kinds += ["id-race", "unreadable"]
        if chance.random() < 0.03:
            kinds = ["hangup"]
        return f"{self._vgpu()} {chance.choice(('fault clear', f'fault {call} {chance.choice(kinds)} count={chance.choice((1, 3, 50))}'))}"

    def _open(self):
        kinds = ("vnc", "vnc", "silent", *self._clients * 3)
        return f"open {self._client()} {self._chance.choice(kinds)} {self._chance.randrange(len(self._personalities))}"

    def _client_acts(self):
        chance = self._chance
        if self._screen.startswith(("gtk", "sdl")) and chance.random() < 0.3:
            return chance.choice((f"size window {chance.randrange(400, 1280)}x{chance.randrange(300, 1024)}", "keys window", "zoom window", "full window"))
        size = f"{chance.randrange(1, 2500)}x{chance.randrange(1, 1600)}"
        return chance.choice(("close {}", "close {}", "hold {}", "release {}", "size {} " + size, "keys {}", "forget {}")).format(self._client())

    def _qemu(self):
        return "qemu " + self._chance.choice((
            "reset", "bus-reset", "freeze", "stop", "cont", "cont", "screendump", "screendump", "info", "info", "save", "savevm"))

    def _device(self):
        return self._chance.choice((f"qemu unplug {self._vgpu()}", f"qemu plug {self._vgpu()}", f"{self._vgpu()} die"))

    def _pause(self):
        return f"pause {self._chance.choice((5, 40, 300, 1200))}"
