"""Results as tables: medians of the rounds, with the smallest and the largest."""

import statistics
from dataclasses import dataclass

from bench import cases

VARIANTS = "stock", "library"


@dataclass(frozen=True)
class Spread:
    """Some measurements of the same."""

    median: float
    smallest: float
    largest: float

    @classmethod
    def of(cls, values):
        """None if there are none."""
        values = [value for value in values if value is not None]
        return cls(statistics.median(values), min(values), max(values)) if values else None

    def text(self, form):
        """`1.0 (0.9..1.2)`; the brackets only where there is a difference to tell."""
        median, smallest, largest = (form(value) for value in (self.median, self.smallest, self.largest))
        return median if smallest == largest else f"{median} ({smallest}..{largest})"


def _at(result, path):
    for key in path.split("."):
        if result is None:
            return None
        result = result.get(key)
    return result


@dataclass(frozen=True)
class Cell:
    """What came of a scene in a group, from both variants."""

    group: cases.Group
    scene: cases.Scene
    # By variant: what each round measured.
    rounds: dict
    # By variant: why there is nothing.
    failed: dict

    def spread(self, variant, path):
        """One number of the results, by its name or names with dots."""
        return Spread.of(_at(result, path) for result in self.rounds.get(variant, ()))

    def text(self, variant, path, form, nothing="-"):
        """The same as text."""
        spread = self.spread(variant, path)
        if spread:
            return spread.text(form)
        return self.failed.get(variant, nothing)

    def ratio(self, path):
        """Library by stock; None if there is no stock to compare with."""
        stock, library = (self.spread(variant, path) for variant in VARIANTS)
        if not stock or not library or stock.median <= 0:
            return None
        return library.median / stock.median


def nonsense(cell):
    """What cannot be, if the bench works."""
    for variant, results in cell.rounds.items():
        for number, result in enumerate(results):
            where = f"{cell.group.name}/{cell.scene.name} ({variant}, round {number + 1})"
            watched = cell.group.front_end.client in ("vnc", "dbus", "spice")
            if cell.group.front_end.callgrind:
                if result["instructions"]["own"] <= 0:
                    yield f"{where}: no instructions"
                continue
            if result["cpu"] <= 0:
                yield f"{where}: QEMU used no CPU time"
            if watched and cell.scene.rate and not result["pictures"]:
                yield f"{where}: the client got nothing, though the guest drew {cell.scene.rate} times a second"
            if watched and cell.scene.buffers > 1 and not _at(result, "noticed.seen"):
                yield f"{where}: no query saw a flip"
            if watched and cell.scene.marked and not _at(result, "shown.seen"):
                yield f"{where}: the client saw no flip"


def _percent(value):
    return f"{100 * value:.1f}"


def _whole(value):
    return f"{value:.0f}"


def _tenths(value):
    return f"{value:.1f}"


def _milliseconds(value):
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _ratio(value):
    return "-" if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def table(heads, rows):
    """Columns of equal width, as Markdown has them."""
    widths = [max(len(line[i]) for line in (heads, *rows)) for i in range(len(heads))]

    def line(words):
        return "| " + " | ".join(word.ljust(width) for word, width in zip(words, widths)) + " |"

    return [line(heads), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)]


def cpu_table(cells):
    """QEMU's CPU time, what we want, and how many pictures the client got for it."""
    rows = []
    for cell in cells:
        ratio, wanted = cell.ratio("cpu"), cases.target(cell.group, cell.scene)
        verdict = "-"
        if wanted is not None:
            verdict = f"<= {wanted:.2f}"
            if ratio is not None:
                verdict += ": met" if ratio <= wanted else f": missed by {ratio / wanted:.1f}x"
        rows.append([
            cell.group.name, cell.scene.name, cell.text("stock", "cpu", _percent), cell.text("library", "cpu", _percent),
            _ratio(ratio), verdict, cell.text("stock", "pictures", _tenths), cell.text("library", "pictures", _tenths)])
    heads = ["group", "scene", "stock, %", "library, %", "ratio", "wanted", "stock, updates/s", "library, updates/s"]
    return table(heads, rows)


def query_table(cells):
    """What the device is asked."""
    rows = []
    for cell in cells:
        row = [cell.group.name, cell.scene.name]
        for path, form in ("queries", _tenths), ("fds", _whole), ("memory.peak", lambda kib: f"{kib / 1024:.0f}"):
            row += [cell.text(variant, path, form) for variant in VARIANTS]
        rows.append(row)
    return table(["group", "scene", "stock, queries/s", "library, queries/s", "stock, fds", "library, fds",
                  "stock, peak MiB", "library, peak MiB"], rows)


def answer_table(cells):
    """How long the main loop is busy with something else."""
    rows = []
    for cell in cells:
        row = [cell.group.name, cell.scene.name]
        for variant in VARIANTS:
            row.append(_delays(_worst(cell, variant, "answers")))
        rows.append(row)
    return table(["group", "scene", "stock p50 / p99 / max, ms", "library p50 / p99 / max, ms"], rows)


def _part_missed(noticed):
    return None if not noticed or not noticed["flips"] else 1 - noticed["seen"] / noticed["flips"]


def _delays(delay):
    if not delay:
        return "-"
    return " / ".join(_milliseconds(delay[name]) for name in ("p50", "p99", "max"))


def _worst(cell, variant, path):
    """Median of the p50s and p99s of the rounds, and the largest of all."""
    delays = [_at(result, path) for result in cell.rounds.get(variant, ())]
    delays = [delay for delay in delays if delay]
    if not delays:
        return None
    return {"p50": statistics.median(delay["p50"] for delay in delays),
            "p99": statistics.median(delay["p99"] for delay in delays), "max": max(delay["max"] for delay in delays)}


def _delay_verdict(cell, missed, delays):
    """How the delays are beside what we want of them."""
    wanted = cases.delay_targets(cell.group, cell.scene)
    if not wanted or not delays:
        return "-"
    words = []
    for name, most in wanted.items():
        result = "met" if delays[name] <= most else f"missed by {delays[name] / most:.1f}x"
        words.append(f"{name} <= {most:g}: {result}")
    words.append("none missed: " + ("met" if missed.median == 0 else "missed"))
    return ", ".join(words)


def latency_table(cells):
    """From the flip until the display asks for it, and until a client has it."""
    rows = []
    for cell in cells:
        for variant in VARIANTS:
            results = cell.rounds.get(variant, ())
            if not results:
                continue
            missed = Spread.of(_part_missed(_at(result, "noticed")) for result in results)
            lost = Spread.of(
                1 - result["shown"]["seen"] / result["noticed"]["flips"] for result in results if "shown" in result)
            delays = _worst(cell, variant, "noticed.delay")
            verdict = _delay_verdict(cell, missed, delays) if variant == "library" else "-"
            rows.append([
                cell.group.name, cell.scene.name, variant, missed.text(_percent) if missed else "-",
                _delays(delays), verdict, lost.text(_percent) if lost else "-",
                _delays(_worst(cell, variant, "shown.delay"))])
    return table(["group", "scene", "", "not noticed, %", "noticed after p50 / p99 / max, ms", "wanted",
                  "not at the client, %", "at the client after p50 / p99 / max, ms"], rows)


def flip_table(cells):
    """Gets per 1000 flips, all of which the display saw; the library counts its imports, too."""
    rows = []
    for cell in cells:
        row = [cell.group.name, cell.scene.name]
        for variant in VARIANTS:
            gets = []
            for result in cell.rounds.get(variant, ()):
                # Each query is followed by a flip.
                gets.append(1000 * result["gets"] / result["flips"] if result["flips"] else None)
            spread = Spread.of(gets)
            row.append(spread.text(_whole) if spread else "-")
        row += [cell.text(variant, "fds", _whole) for variant in VARIANTS]
        row.append(cell.text("library", "status.imports", _whole))
        rows.append(row)
    return table(["group", "scene", "stock, gets/1000", "library, gets/1000", "stock, fds", "library, fds",
                  "library, imports in all"], rows)


def instruction_table(cells):
    """Instructions of one refresh."""
    rows = []
    for cell in cells:
        row = [cell.group.name, cell.scene.name]
        for path in "instructions.own", "instructions.asking":
            row += [cell.text(variant, path, _whole) for variant in VARIANTS]
            row.append(_ratio(cell.ratio(path)))
        row += [cell.text(variant, "instructions.whole", _whole) for variant in VARIANTS]
        rows.append(row)
    return table(["group", "scene", "stock, own", "library, own", "ratio", "stock, asking", "library, asking", "ratio",
                  "stock, all", "library, all"], rows)


def sections(cells):
    """Titles, explanations and tables, for those of which there is something."""
    counted = [cell for cell in cells if cell.group.front_end.callgrind]
    cells = [cell for cell in cells if not cell.group.front_end.callgrind]
    content = [cell for cell in cells if not cell.scene.name.startswith(("flips", "rotate"))]
    flips = [cell for cell in cells if cell.scene.name.startswith("flips")]
    rotation = [cell for cell in cells if cell.scene.name.startswith("rotate")]
    every = (
        ("QEMU's CPU time",
         "User and system time of the whole process, in percent of one processor; beside it, how many updates the client got "
         "(of SPICE rectangles, of D-Bus with OpenGL calls: two a flip).",
         [cell for cell in cells if cell not in rotation], cpu_table),
        ("From flip to display",
         "The vGPU notes when it flips and when a query first tells that flip; a client reads its number from the pixels.",
         flips, latency_table),
        ("Buffers in turn",
         "Gets after the warm-up, per 1000 flips, all of which the display saw, since the vGPU waits for it.",
         rotation, flip_table),
        ("How soon the monitor answers",
         "A QMP command every 5 ms, while the scene goes on: what holds up QEMU's main loop, holds up the answer.",
         cells, answer_table),
        ("What the device is asked, and what QEMU holds",
         "Descriptors at the end of the scene; the peak is that of the process so far, so it grows from scene to scene of a group.",
         content + flips, query_table),
        ("Instructions of a refresh",
         "From the front end's refresh to its return, on average, under Callgrind. *Own* is without what front ends do with the "
         "picture and without QEMU's part of the exchange with the device; *asking* is with the latter: stock asks the device twice "
         "a refresh (screen and pointer), the library mostly once. *All* is with both. Looks between the refreshes are not in it.",
         counted, instruction_table),
    )
    for title, explanation, some, make in every:
        if some:
            yield title, explanation, make(some)
