"""What is measured: front ends, devices, sizes and scenes; and the goals."""

import fnmatch
from dataclasses import dataclass, field

# The vGPUs that stand for the ways to hand out a plane.
MODES = {"dma-buf": ("gvt",), "region": ("nvidia",)}

SIZES = {"1080p": (1920, 1080), "4K": (3840, 2160), "small": (640, 480)}


@dataclass(frozen=True)
class FrontEnd:
    """How QEMU shows the console, and its client."""

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
    """What the vGPU shows during a measurement."""

    name: str
    title: str
    command: str
    buffers: int = 1
    # What the buffers hold at first.
    pattern: str = "text"
    # Pictures a second that the guest makes; 0: none.
    rate: int = 0
    # The vGPU's fault during the measurement.
    fault: str | None = None
    # Whether the monitor is queried meanwhile.
    asked: bool = False
    # Whether a cursor appears.
    cursor: bool = False

    @property
    def marked(self):
        """Whether each picture carries its number."""
        return "mark" in self.command.replace("=", " ").split()


def _flips(rate, draw):
    # More flips than any measurement waits for.
    return f"run flips=1000000 rate={rate} draw={draw}"


def _scenes():
    yield Scene("static", "nothing changes", "scene static")
    yield Scene("typing", "a character, 30 times a second", "scene typing rate=30", rate=30, asked=True)
    yield Scene("block", "a block of 64x64, 30 times a second", "scene block rate=30", rate=30)
    yield Scene("video", "the whole picture, 30 times a second, 3 buffers", _flips(30, "full"), 3, rate=30)
    for rate in 60, 144:
        yield Scene(f"flips{rate}", f"flips at {rate} Hz, 3 buffers", _flips(rate, "mark"), 3, rate=rate)
    for rate in 60, 120:
        title = f"a block of 64x64 drawn in place, {rate} times a second"
        yield Scene(f"draws{rate}", title, f"scene mark rate={rate}", rate=rate)
    for delay in 8, 90:
        title = f"the same 60 times a second, and each query takes {delay} ms"
        yield Scene(f"slow{delay}", title, "scene mark rate=60", rate=60, fault=f"query delay {delay}", asked=True)
    yield Scene("pointer", "a cursor appears where nothing else changes", "scene static", cursor=True)
    for buffers in 2, 5, 6, 8, 16:
        title = f"{buffers} buffers, each query sees the next"
        yield Scene(f"rotate{buffers}", title, "flip-on-query on", buffers, "bars")


SCENES = {scene.name: scene for scene in _scenes()}


@dataclass(frozen=True)
class Group:
    """The scenes that one QEMU shows, one after the other."""

    front_end: FrontEnd
    mode: str
    size: str
    scenes: tuple[Scene, ...] = field(repr=False)

    @property
    def name(self):
        """The name in files and for --only."""
        return f"{self.front_end.name}/{self.mode}/{self.size}"

    @property
    def stock_refuses(self):
        """Returns what QEMU's own code does instead of showing it; None if it shows it."""
        if self.mode != "dma-buf":
            return "shows nothing" if self.front_end.name == "spice-gl" else None
        if not self.front_end.opengl:
            return "refuses: no OpenGL"
        # A VNC server needs pixels, and the console has dma-bufs only.
        return "refuses: VNC" if self.front_end.client == "vnc" else None


def group(name, *scenes):
    """Returns the group of this name, with the scenes of these names."""
    front_end, mode, size = name.split("/")
    return Group(FRONT_ENDS[front_end], mode, size, tuple(SCENES[name] for name in scenes))


def _group(front_end, mode, size, *scenes):
    return group(f"{front_end}/{mode}/{size}", *scenes)


# Starting QEMU, the vGPU and a client; and what a scene takes beside its measurement: the warm-up,
# and asking the vGPU. In seconds.
_START, _BESIDE = 4.0, 1.3


def minutes(groups, rounds, seconds):
    """Estimates how long these take, with and without the library."""
    def once(group):
        return _START + sum(_BESIDE + seconds * (2 if scene.asked else 1) for scene in group.scenes)

    return rounds * sum(once(group) * (1 if group.stock_refuses else 2) for group in groups) / 60


_CONTENT = "static", "typing", "block", "video"
_DRAWS = "draws60", "draws120"
_SLOW = "slow8", "slow90"


def quick():
    """The most telling cases, in a few minutes."""
    return [_group(front_end, mode, "1080p", *_CONTENT)
            for front_end in ("vnc", "egl", "egl-vnc") for mode in ("dma-buf", "region")]


def full():
    """All cases."""
    return [
        _group("none", "region", "1080p", "static"),
        _group("vnc", "region", "1080p", *_CONTENT, "flips60", *_DRAWS, *_SLOW),
        _group("vnc", "dma-buf", "1080p", *_CONTENT, "flips60", *_DRAWS, *_SLOW, "pointer"),
        _group("vnc", "region", "4K", *_CONTENT, "flips60", "draws60"),
        _group("vnc", "dma-buf", "4K", "typing", "block", "flips60", "draws60"),
        _group("egl", "region", "1080p", "static", "typing"),
        _group("egl", "dma-buf", "1080p", "static", "typing", "video"),
        _group("egl-vnc", "region", "1080p", "static", "typing"),
        _group("egl-vnc", "dma-buf", "1080p", "typing", "flips60"),
        _group("dbus", "region", "1080p", *_CONTENT, "flips60", *_DRAWS),
        _group("dbus", "dma-buf", "1080p", "typing", "flips60", *_DRAWS),
        _group("dbus-gl", "region", "1080p", "typing", "block", "video", "draws60"),
        _group("dbus-gl", "dma-buf", "1080p", "static", "typing", "flips60", "flips144", *_DRAWS, *_SLOW, "pointer"),
        _group("spice", "region", "1080p", *_CONTENT, "flips60", *_DRAWS),
        _group("spice", "dma-buf", "1080p", "typing", "flips60", *_DRAWS, "pointer"),
        _group("spice-gl", "dma-buf", "1080p", "static", "flips60", "draws60", "pointer"),
        _group("gtk", "region", "1080p", *_CONTENT, "flips60", *_DRAWS),
        _group("gtk", "dma-buf", "1080p", "typing", "flips60", *_DRAWS),
        _group("dbus-gl", "dma-buf", "4K", "video", "flips60", "rotate2", "rotate5", "rotate16"),
        _group("callgrind", "dma-buf", "1080p", "static", "rotate2", "rotate5", "rotate16"),
    ]


def published():
    """The cases of docs/performance.md: what users notice, in little more than half an hour."""
    return [
        _group("vnc", "region", "1080p", *_CONTENT, "flips60", *_DRAWS, *_SLOW),
        _group("vnc", "dma-buf", "1080p", "flips60", *_DRAWS, *_SLOW, "pointer"),
        _group("vnc", "region", "4K", "typing", "block", "draws60"),
        _group("vnc", "dma-buf", "4K", "draws60"),
        _group("egl", "dma-buf", "1080p", "static"),
        _group("egl-vnc", "region", "1080p", "typing"),
        _group("dbus", "region", "1080p", "block", "draws60"),
        _group("dbus", "dma-buf", "1080p", "draws60"),
        _group("dbus-gl", "dma-buf", "1080p", "static", "flips60", "flips144", "draws60", "slow90", "pointer"),
        _group("spice", "region", "1080p", "block", "draws60"),
        _group("spice-gl", "dma-buf", "1080p", "flips60"),
        _group("gtk", "region", "1080p", "block", "draws60"),
    ]


def smoke():
    """A check of the bench itself: each client, mode and kind of scene, in seconds."""
    return [_group("vnc", "region", "small", "draws120", *_SLOW),
            _group("dbus-gl", "dma-buf", "small", "flips60", "rotate6", "pointer"), _group("egl", "dma-buf", "small", "typing"),
            _group("gtk", "region", "small", "draws60"), _group("spice", "region", "small", "block")]


def matches(group, scene, patterns):
    """Returns whether one of the shell patterns matches this case."""
    return any(fnmatch.fnmatch(f"{group.name}/{scene.name}", pattern) for pattern in patterns)


@dataclass(frozen=True)
class Wanted:
    """The goals: maximum ratios to stock; None: no goal."""

    cpu: float | None = None
    # CPU time per picture that arrives.
    picture: float | None = None


# The first match counts.
_WANTED = (
    ("vnc/region/1080p/static", Wanted(1.0)), ("vnc/region/1080p/typing", Wanted(0.45, 0.45)),
    ("vnc/region/1080p/block", Wanted(0.6, 0.5)), ("vnc/region/1080p/flips60", Wanted(0.6, 0.4)),
    ("vnc/region/1080p/video", Wanted(1.0, 0.9)), ("vnc/region/4K/typing", Wanted(0.25)), ("vnc/region/4K/block", Wanted(0.25)),
    ("spice/region/1080p/block", Wanted(0.5)), ("gtk/region/1080p/block", Wanted(0.5)), ("dbus/region/1080p/block", Wanted(0.5)),
    ("egl-vnc/region/1080p/static", Wanted(0.25)), ("egl-vnc/region/1080p/typing", Wanted(0.25)),
    ("*/region/1080p/video", Wanted(1.05)),
    ("egl/dma-buf/1080p/static", Wanted(0.05)), ("egl/dma-buf/1080p/typing", Wanted(0.3)),
    ("egl/dma-buf/1080p/video", Wanted(0.7)),
)


def wanted(name):
    """Returns the goals of a case, by its name for --only."""
    return next((ratios for pattern, ratios in _WANTED if fnmatch.fnmatch(name, pattern)), Wanted())


# Goal: the part of the pictures that a client sees, by their rate.
SEEN = {60: 0.97, 120: 0.83}
# From the drawing until a client has it, in ms, at 60 a second.
DRAWN_TO_SEEN = {"p50": 10.0, "p99": 20.0}
# From a flip until the display has asked for it, in ms, where a client takes dma-bufs as they are;
# and no flip missed.
NOTICED = {"p50": 1.0, "p99": 4.0}
# How long the display may hold the main loop, in ms, where the picture keeps its size.
HELD = {"p99": 0.5, "max": 5.0}
# The monitor's answer beside a slow device, in ms, and the part of the time that may be spent in
# waits for it that are long.
ANSWERED, WAITING = 3.0, 0.02
# Until a cursor is there, in seconds.
APPEARED = 0.25
