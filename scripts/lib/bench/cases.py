"""What is measured: front ends, devices, sizes and scenes; and what we want of it."""

from dataclasses import dataclass, field

# The vGPUs that stand for the two ways to hand out a plane, and what they are called here.
PERSONALITIES = {"dma-buf": "gvt", "region": "nvidia"}

SIZES = {"1080p": (1920, 1080), "4K": (3840, 2160), "small": (640, 480)}


@dataclass(frozen=True)
class FrontEnd:
    """How QEMU shows the console, and who looks at it."""

    name: str
    title: str
    screen: str
    client: str | None = None
    # QEMU's own code shows dma-bufs only where a front end has OpenGL.
    opengl: bool = False
    # Under Callgrind, instructions are counted, and nothing else.
    callgrind: bool = False


FRONT_ENDS = {front_end.name: front_end for front_end in (
    FrontEnd("none", "-display none", "none"),
    FrontEnd("vnc", "VNC, one client", "none", client="vnc"),
    FrontEnd("egl", "egl-headless, no client", "egl-headless", opengl=True),
    FrontEnd("egl-vnc", "egl-headless with one VNC client", "egl-headless", client="vnc", opengl=True),
    FrontEnd("dbus", "D-Bus, one client", "dbus,p2p=yes", client="dbus"),
    FrontEnd("dbus-gl", "D-Bus with OpenGL, one client", "dbus,p2p=yes,gl=on", client="dbus", opengl=True),
    FrontEnd("callgrind", "D-Bus with OpenGL, one client, under Callgrind", "dbus,p2p=yes,gl=on", client="dbus",
             opengl=True, callgrind=True),
    FrontEnd("spice", "SPICE, one client", "none", client="spice"),
    FrontEnd("spice-gl", "SPICE with OpenGL, one client", "none", client="spice", opengl=True),
    FrontEnd("gtk", "GTK on Xvfb", "gtk,gl=off,show-menubar=off,show-tabs=off,zoom-to-fit=off", client="x11"),
)}


@dataclass(frozen=True)
class Scene:
    """What the vGPU shows meanwhile."""

    name: str
    title: str
    command: str
    buffers: int = 1
    # What the buffers hold at first.
    pattern: str = "text"
    # Pictures a second that the guest makes; 0: none.
    rate: int = 0

    @property
    def marked(self):
        """Whether each flip carries its number."""
        return " draw=mark" in self.command


def _flips(rate, buffers, draw):
    # More flips than any measurement waits for.
    return f"run flips=1000000 rate={rate} draw={draw}", buffers, rate


def _scenes():
    yield Scene("static", "nothing changes", "scene static")
    yield Scene("typing", "a character, 30 times a second", "scene typing rate=30", rate=30)
    yield Scene("block", "a block of 64x64, 30 times a second", "scene block rate=30", rate=30)
    command, buffers, rate = _flips(30, 3, "full")
    yield Scene("video", "the whole picture, 30 times a second, 3 buffers", command, buffers, rate=rate)
    for rate in 60, 144:
        command, buffers, _ = _flips(rate, 3, "mark")
        yield Scene(f"flips{rate}", f"flips at {rate} Hz, 3 buffers", command, buffers, rate=rate)
    for buffers in 2, 5, 6, 8, 16:
        title = f"{buffers} buffers, each query sees the next"
        yield Scene(f"rotate{buffers}", title, "flip-on-query on", buffers, "bars")


SCENES = {scene.name: scene for scene in _scenes()}


@dataclass(frozen=True)
class Group:
    """What one QEMU shows, one scene after the other."""

    front_end: FrontEnd
    mode: str
    size: str
    scenes: tuple[Scene, ...] = field(repr=False)

    @property
    def name(self):
        """For files and --only."""
        return f"{self.front_end.name}/{self.mode}/{self.size}"

    @property
    def stock_refuses(self):
        """What QEMU's own code does instead of showing it; None if it shows it."""
        if self.mode == "region":
            return "shows nothing" if self.front_end.name == "spice-gl" else None
        if not self.front_end.opengl:
            return "refuses: no OpenGL"
        # A VNC server wants pixels, and the console says that it has dma-bufs only.
        return "refuses: VNC" if self.front_end.client == "vnc" else None


def _group(front_end, mode, size, *scenes):
    return Group(FRONT_ENDS[front_end], mode, size, tuple(SCENES[name] for name in scenes))


_CONTENT = "static", "typing", "block", "video"


def quick():
    """What tells most in a few minutes."""
    return [_group(front_end, mode, "1080p", *_CONTENT)
            for front_end in ("vnc", "egl", "egl-vnc") for mode in PERSONALITIES]


def full():
    """All of it."""
    groups = [_group("none", mode, "1080p", "static", "flips60") for mode in PERSONALITIES]
    fast = ("dbus-gl", "dma-buf"), ("dbus", "region")
    for front_end in "vnc", "egl", "egl-vnc", "dbus", "dbus-gl", "spice", "spice-gl", "gtk":
        for mode in PERSONALITIES:
            flips = ("flips60", "flips144") if (front_end, mode) in fast else ("flips60",)
            groups.append(_group(front_end, mode, "1080p", *_CONTENT, *flips))
    for front_end in "vnc", "egl", "dbus-gl":
        for mode in PERSONALITIES:
            if (front_end, mode) != ("dbus-gl", "region"):
                groups.append(_group(front_end, mode, "4K", *_CONTENT, "flips60"))
    groups.append(_group("dbus-gl", "dma-buf", "4K", *(name for name in SCENES if name.startswith("rotate"))))
    groups.append(_group("callgrind", "dma-buf", "1080p", "static", "rotate2", "rotate5", "rotate16"))
    return groups


def smoke():
    """Whether the bench itself works: each client and each mode, in seconds."""
    return [_group("vnc", "region", "small", "flips60", "static"), _group("dbus-gl", "dma-buf", "small", "rotate6"),
            _group("egl", "dma-buf", "small", "typing"), _group("gtk", "region", "small", "block")]


# CPU time of the library as a part of stock's, at most. The first match counts.
_TARGETS = (
    (("vnc", "region", "block"), 0.5), (("spice", "region", "block"), 0.5), (("gtk", "region", "block"), 0.5),
    (("dbus", "region", "block"), 0.5),
    (("vnc", "region", "typing"), 0.6), (("egl-vnc", "region", "typing"), 0.25), (("egl-vnc", "region", "static"), 0.25),
    ((None, "region", "video"), 1.05),
    (("egl", "dma-buf", "static"), 0.05), (("egl", "dma-buf", "typing"), 0.3), (("egl", "dma-buf", "video"), 0.7),
)


def target(group, scene):
    """The highest ratio of CPU times that we want; None if we have not said."""
    for (front_end, mode, name), ratio in _TARGETS:
        if front_end in (None, group.front_end.name) and mode == group.mode and name == scene.name:
            return ratio
    return None


# From a flip until the display has asked for it, in ms; and no flip missed.
DELAY_TARGETS = {"p50": 1.0, "p99": 4.0}


def delay_targets(group, scene):
    """The same for one case; None if we have not said: only where the client takes dma-bufs as they are, no pixels are copied."""
    wanted = scene.marked and group.mode == "dma-buf" and group.front_end.name in ("dbus-gl", "spice-gl")
    return DELAY_TARGETS if wanted else None
