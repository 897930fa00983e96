"""Tables of results: medians of the rounds, with the smallest and the largest."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from bench import cases

VARIANTS = "stock", "library"
# All tables of the published report together.
MOST_ROWS = 60
# Whose refreshes are to be short.
HELD_SCENES = "typing", "block"


@dataclass(frozen=True)
class Spread:
    """The measurements of one thing: median, smallest, largest."""

    median: float
    smallest: float
    largest: float

    @classmethod
    def of(cls, values):
        """Creates it; None if there are no measurements."""
        values = [value for value in values if value is not None]
        return cls(statistics.median(values), min(values), max(values)) if values else None

    def text(self, form):
        """Formats as `1.0 (0.9..1.2)`, without brackets if there is no difference."""
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
    """The results of a scene in a group, for both variants."""

    group: cases.Group
    scene: cases.Scene
    # By variant and round: what was measured.
    rounds: dict
    # By variant: why there is nothing.
    failed: dict

    @property
    def name(self):
        """The name for --only."""
        return f"{self.group.name}/{self.scene.name}"

    def values(self, variant, path):
        """Returns one number, by its dotted name, of each round that has it."""
        values = [_at(result, path) for result in self.rounds.get(variant, {}).values()]
        return [value for value in values if value is not None]

    def spread(self, variant, path):
        """Returns the same as a spread; None if there is nothing."""
        return Spread.of(self.values(variant, path))

    def text(self, variant, path, form, nothing="-"):
        """Returns the same as text."""
        spread = self.spread(variant, path)
        if spread:
            return spread.text(form)
        return self.failed.get(variant, nothing)

    def ratios(self, path):
        """Returns library divided by stock, per round, so that the machine's load cancels out."""
        stock, library = (self.rounds.get(variant, {}) for variant in VARIANTS)
        ratios = {}
        for number in sorted(stock.keys() & library.keys()):
            below, above = _at(stock[number], path), _at(library[number], path)
            if below and above is not None:
                ratios[number] = above / below
        return ratios

    def ratio(self, path):
        """Returns the same as a spread; None if there is no stock to compare with."""
        return Spread.of(self.ratios(path).values())


def nonsense(cell):
    """Returns results that are impossible if the bench works."""
    scene = cell.scene
    for variant, results in cell.rounds.items():
        for number, result in results.items():
            where = f"{cell.name} ({variant}, round {number + 1})"
            if cell.group.front_end.callgrind:
                if result["instructions"]["own"] <= 0:
                    yield f"{where}: no instructions"
                continue
            if scene.cursor:
                if not result["appeared"]:
                    yield f"{where}: the client never had a cursor"
                continue
            if result["cpu"] <= 0:
                yield f"{where}: QEMU used no CPU time"
            if scene.asked and not _at(result, "answers.p50"):
                yield f"{where}: the monitor did not answer"
            if scene.fault or not cell.group.front_end.client:
                continue
            if scene.rate and not result["pictures"]:
                yield f"{where}: the client got nothing, though the guest drew {scene.rate} times a second"
            if scene.rate and variant == "library" and not result["held"]:
                yield f"{where}: the display does not tell how long its refreshes took"
            if scene.buffers > 1 and not _at(result, "noticed.seen"):
                yield f"{where}: no query saw a flip"
            if scene.marked and not _at(result, "shown.seen"):
                yield f"{where}: the client saw no picture of the guest's"


def _percent(value):
    return f"{100 * value:.1f}"


def _whole(value):
    return f"{value:.0f}"


def _tenths(value):
    return f"{value:.1f}"


def _milliseconds(value):
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _thousandths(value):
    return f"{1000 * value:.2f}"


def _ratio(value):
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _spread(spread, form):
    return spread.text(form) if spread else "-"


def _verdict(value, most=None, least=None):
    """Formats a number with its goal."""
    if value is None:
        return "not measured"
    met = value <= most if most is not None else value >= least
    return "met" if met else "missed"


def table(heads, rows):
    """Formats a Markdown table with columns of equal width."""
    widths = [max(len(line[i]) for line in (heads, *rows)) for i in range(len(heads))]

    def line(words):
        return "| " + " | ".join(word.ljust(width) for word, width in zip(words, widths)) + " |"

    return [line(heads), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)]


def _median(spread):
    return spread.median if spread else None


def cpu_table(cells):
    """Table: QEMU's CPU time, and how many pictures the client got for it."""
    rows = []
    for cell in cells:
        wanted = cases.wanted(cell.name)
        row = [cell.group.name, cell.scene.name]
        for variant in VARIANTS:
            row += [cell.text(variant, "cpu", _percent), cell.text(variant, "pictures", _tenths)]
        verdicts = []
        for path, most, what in ("cpu", wanted.cpu, ""), ("picture", wanted.picture, " a picture"):
            ratio = cell.ratio(path)
            row.append(_spread(ratio, _ratio))
            if most is not None:
                verdicts.append(f"<= {most:.2f}{what}: {_verdict(_median(ratio), most=most)}")
        rows.append([*row, ", ".join(verdicts) or "-"])
    return table(["group", "scene", "stock, %", "pictures/s", "library, %", "pictures/s", "ratio", "ratio for each picture",
                  "wanted"], rows)


def _worst(cell, variant, path, names=("p50", "p99")):
    """Returns the medians of the rounds; for the largest, the largest of all."""
    spreads = {name: cell.spread(variant, f"{path}.{name}") for name in names}
    if None in spreads.values():
        return None
    return {name: spread.largest if name == "max" else spread.median for name, spread in spreads.items()}


def _held(cell):
    """Returns how long refreshes held the main loop, in ms, in all rounds together: one has few."""
    each = sorted(microseconds / 1000 for counts in cell.values("library", "held") for microseconds, count in counts
                  for _ in range(count))
    return {"p99": each[min(len(each) - 1, int(0.99 * len(each)))], "max": each[-1]} if each else None


def _delays(delays):
    return " / ".join(map(_milliseconds, delays.values())) if delays else "-"


def seen_table(cells):
    """Table: which of the guest's pictures a client sees."""
    rows = []
    for cell in cells:
        row = [cell.group.name, cell.scene.name]
        for variant in VARIANTS:
            row += [cell.text(variant, "shown.part", _percent), cell.text(variant, "pictures", _tenths),
                    _delays(_worst(cell, variant, "shown.delay"))]
        least = cases.SEEN.get(cell.scene.rate)
        verdict = "-"
        if least and cell.scene.name.startswith("draws"):
            verdict = f">= {100 * least:.0f} %: {_verdict(_median(cell.spread('library', 'shown.part')), least=least)}"
        rows.append([*row, verdict])
    return table(["group", "scene", "stock: seen, %", "pictures/s", "p50 / p99, ms", "library: seen, %", "pictures/s",
                  "p50 / p99, ms", "wanted"], rows)


def noticed_table(cells):
    """Table: from the flip until the display asks for it."""
    rows = []
    for cell in cells:
        row = [cell.group.name, cell.scene.name]
        for variant in VARIANTS:
            parts = []
            for result in cell.rounds.get(variant, {}).values():
                noticed = result.get("noticed")
                parts.append(noticed["seen"] / noticed["flips"] if noticed else None)
            row += [_spread(Spread.of(parts), _percent), _delays(_worst(cell, variant, "noticed.delay", ("p50", "p99", "max")))]
        verdict = "-"
        # Where no pixels are copied.
        if _hands_on(cell):
            delays = _worst(cell, "library", "noticed.delay") or {}
            verdict = ", ".join(f"{name} <= {most:g}: {_verdict(delays.get(name), most=most)}"
                                for name, most in cases.NOTICED.items())
        rows.append([*row, verdict])
    return table(["group", "scene", "stock: noticed, %", "p50 / p99 / max, ms", "library: noticed, %", "p50 / p99 / max, ms",
                  "wanted"], rows)


def main_loop_table(cells):
    """Table: how long QEMU's main loop is held."""
    rows = []
    for cell in cells:
        row = [cell.group.name, cell.scene.name]
        for variant in VARIANTS:
            row += [_delays(_worst(cell, variant, "answers", ("p50", "p99", "max"))),
                    cell.text(variant, "answers.waiting", _percent)]
        held = _held(cell)
        verdicts = []
        if cell.scene.fault:
            verdicts = [f"p99 <= {cases.ANSWERED:g}: {_verdict(_median(cell.spread('library', 'answers.p99')), most=cases.ANSWERED)}",
                        f"waits <= {100 * cases.WAITING:g} %: "
                        f"{_verdict(_median(cell.spread('library', 'answers.waiting')), most=cases.WAITING)}"]
        elif cell.scene.name in HELD_SCENES:
            verdicts = [f"held: {name} <= {most:g}: {_verdict((held or {}).get(name), most=most)}"
                        for name, most in cases.HELD.items()]
        rows.append([*row, _delays(held), ", ".join(verdicts) or "-"])
    return table(["group", "scene", "stock: QMP p50 / p99 / max, ms", "waits, %", "library: QMP p50 / p99 / max, ms", "waits, %",
                  "held p99 / max, ms", "wanted"], rows)


def pointer_table(cells):
    """Table: seconds until a client has the cursor."""
    rows = []
    for cell in cells:
        row = [cell.group.name]
        for variant in VARIANTS:
            nothing = "never" if cell.rounds.get(variant) else "-"
            row.append(cell.text(variant, "appeared", "{:.2f}".format, nothing))
        most = cases.APPEARED
        rows.append([*row, f"<= {most:g}: {_verdict(_median(cell.spread('library', 'appeared')), most=most)}"])
    return table(["group", "stock, s", "library, s", "wanted"], rows)


def query_table(cells):
    """Table: calls of the device."""
    rows = []
    for cell in cells:
        row = [cell.group.name, cell.scene.name]
        for path, form in ("queries", _tenths), ("fds", _whole), ("memory.peak", lambda kib: f"{kib / 1024:.0f}"):
            row += [cell.text(variant, path, form) for variant in VARIANTS]
        rows.append(row)
    return table(["group", "scene", "stock, queries/s", "library, queries/s", "stock, fds", "library, fds",
                  "stock, peak MiB", "library, peak MiB"], rows)


def flip_table(cells):
    """Table: gets per 1000 flips, all of which the display saw, and the library's imports."""
    rows = []
    for cell in cells:
        row = [cell.group.name, cell.scene.name]
        for variant in VARIANTS:
            # Each query is followed by a flip.
            gets = [1000 * result["gets"] / result["flips"] if result["flips"] else None
                    for result in cell.rounds.get(variant, {}).values()]
            row.append(_spread(Spread.of(gets), _whole))
        row += [cell.text(variant, "fds", _whole) for variant in VARIANTS]
        row.append(cell.text("library", "status.imports", _whole))
        rows.append(row)
    return table(["group", "scene", "stock, gets/1000", "library, gets/1000", "stock, fds", "library, fds",
                  "library, imports in all"], rows)


def instruction_table(cells):
    """Table: instructions of one refresh."""
    rows = []
    for cell in cells:
        row = [cell.group.name, cell.scene.name]
        for path in "instructions.own", "instructions.asking":
            row += [cell.text(variant, path, _whole) for variant in VARIANTS]
            row.append(_spread(cell.ratio(path), _ratio))
        row += [cell.text(variant, "instructions.whole", _whole) for variant in VARIANTS]
        rows.append(row)
    return table(["group", "scene", "stock, own", "library, own", "ratio", "stock, asking", "library, asking", "ratio",
                  "stock, all", "library, all"], rows)


@dataclass(frozen=True)
class Table:
    """A table, and the cases in it."""

    title: str
    explanation: str
    # Which cases have something to tell, and which of them are rows of the published report.
    has: Callable[[Cell], bool]
    make: Callable[[list[Cell]], list[str]]
    published: Callable[[Cell], bool] = lambda _: True


def _rotates(cell):
    return cell.scene.name.startswith("rotate")


def _measured(cell):
    return not cell.group.front_end.callgrind


def _hands_on(cell):
    """Returns whether clients take dma-bufs as they are."""
    return cell.group.mode == "dma-buf" and cell.group.front_end.name in ("dbus-gl", "spice-gl")


TABLES = (
    Table("What a client sees of what is drawn",
          "Each drawing or flip has a number, which a client reads from the picture: the part of them that came, pictures a second, "
          "and how long after the drawing they came. Stock's front ends refresh half as often as the guest draws.",
          lambda cell: _measured(cell) and cell.scene.marked and not cell.scene.fault, seen_table,
          lambda cell: cell.scene.name.startswith("draws")),
    Table("QEMU's CPU time, for how many pictures",
          "User and system time of the whole process, in percent of one processor, and the pictures a second that the client got "
          "for it. Ratios are those of the two measurements of a round.",
          lambda cell: _measured(cell) and not cell.scene.cursor and not cell.scene.fault and not _rotates(cell), cpu_table,
          lambda cell: not cell.group.stock_refuses),
    Table("How long the main loop is held",
          "A QMP command is sent 5 ms after the answer to the one before: how long the answers took, and which part of the time was "
          "spent waiting more than 5 ms for one; and, from inside, how long the display's refreshes took.",
          lambda cell: _measured(cell) and (cell.scene.asked or cell.scene.name in HELD_SCENES), main_loop_table,
          lambda cell: bool(cell.scene.fault) or cell.name.startswith("vnc/region/")),
    Table("A pointer appears on an idle screen", "Seconds until a client has it.", lambda cell: cell.scene.cursor, pointer_table),
    Table("From a flip until the display polls it",
          "The vGPU notes when it flips, and when a query first reports that flip; a flip that no query saw before the next one is "
          "not noticed.", lambda cell: _measured(cell) and cell.scene.marked and cell.scene.buffers > 1, noticed_table, _hands_on),
    Table("Buffers in turn",
          "Gets after the warm-up, per 1000 flips, all of which the display saw, since the vGPU waits for it.",
          lambda cell: _measured(cell) and _rotates(cell), flip_table),
    Table("What the device is asked, and what QEMU holds",
          "Descriptors at the end of the scene; the peak is that of the process so far, so it grows from scene to scene of a group.",
          lambda cell: _measured(cell) and not cell.scene.cursor and not _rotates(cell), query_table, lambda _: False),
    Table("Instructions of a refresh",
          "From the front end's refresh to its return, on average, under Callgrind. *Own* is without what front ends do with the "
          "picture and without QEMU's part of the exchange with the device; *asking* is with the latter; *all* is with both. What "
          "is done between the refreshes is not in it.", lambda cell: not _measured(cell), instruction_table),
)


def sections(cells, published=False):
    """Yields titles, explanations and tables that have data. `published`: only the telling rows."""
    for each in TABLES:
        some = [cell for cell in cells if each.has(cell) and (not published or each.published(cell))]
        if some:
            yield each.title, each.explanation, each.make(some)


# Clients of pictures that QEMU reads. Those that import dma-bufs are shown drawings in place when their front end refreshes.
_CLIENTS = "vnc", "dbus", "spice", "gtk"
_OTHERS = "vnc/region/4K/typing", "vnc/region/4K/block", "vnc/region/1080p/static"


def _drawings(rate):
    return [f"{client}/{mode}/*/draws{rate}" for client in _CLIENTS for mode in ("region", "dma-buf")]


def figures(cells):
    """The ten figures that matter: the worst of all cases for each."""
    def of(patterns):
        return [cell for cell in cells if cases.matches(cell.group, cell.scene, patterns)]

    def worst(path, patterns, pick=max):
        """Returns the spread with the worst median, by variant."""
        spreads = {variant: [cell.spread(variant, path) for cell in of(patterns)] for variant in VARIANTS}
        return {variant: pick(filter(None, some), key=_median, default=None) for variant, some in spreads.items()}

    def ratio(path, *names):
        """Returns the same for each case."""
        found = [next(iter(of([name])), None) for name in names]
        return [{"stock": None, "library": cell.ratio(path) if cell else None} for cell in found]

    def row(what, values, form, unit, *limits, least=False):
        """Formats `values`, each by variant, and their goals."""
        def words(texts):
            texts = list(texts)
            return "-" if set(texts) <= {"-"} else " / ".join(texts) + unit

        library = [value["library"] for value in values] or [None] * len(limits)
        verdicts = [_verdict(_median(value), **{"least" if least else "most": limit}) for value, limit in zip(library, limits)]
        wanted = (f"{'>=' if least else '<='} {words(map(form, limits))}: "
                  f"{', '.join(verdicts if len(set(verdicts)) > 1 else verdicts[:1])}")
        return [what, words(_spread(value["stock"], form) for value in values),
                words(_spread(value, form) for value in library), wanted]

    def scenes(where, *names):
        return [f"vnc/region/{where}/{name}" for name in names]

    content, slow = scenes("1080p", "typing", "block", "flips60", "video"), [[f"*/slow{delay}"] for delay in (8, 90)]
    held = [each for each in map(_held, of(scenes("*", *HELD_SCENES))) if each]
    longest = [{"stock": None, "library": Spread.of([max((each[name] for each in held), default=None)])} for name in cases.HELD]
    return [
        row("Of 60 drawings a second, a client sees",
            [worst("shown.part", _drawings(60), min)], _percent, " %", cases.SEEN[60], least=True),
        row("Of 120 drawings a second, a client sees",
            [worst("shown.part", _drawings(120), min)], _percent, " %", cases.SEEN[120], least=True),
        row("From drawn to seen, 60 a second, p50 / p99",
            [worst(f"shown.delay.{name}", _drawings(60)) for name in cases.DRAWN_TO_SEEN], _milliseconds, " ms",
            *cases.DRAWN_TO_SEEN.values()),
        row("A refresh holds the main loop, p99 / max",
            longest, _milliseconds, " ms", *cases.HELD.values()),
        row("QMP's answer while queries take 8 / 90 ms, p99", [worst("answers.p99", patterns) for patterns in slow],
            _milliseconds, " ms", cases.ANSWERED, cases.ANSWERED),
        row("Part of the time in waits of more than 5 ms, the same", [worst("answers.waiting", patterns) for patterns in slow],
            _percent, " %", cases.WAITING, cases.WAITING),
        row("CPU time by stock's, typing / block / flips / video", ratio("cpu", *content), _ratio, "",
            *(cases.wanted(name).cpu for name in content)),
        row("The same for each picture that arrives", ratio("picture", *content), _ratio, "",
            *(cases.wanted(name).picture for name in content)),
        row("CPU time by stock's, 4K typing / 4K block / static", ratio("cpu", *_OTHERS), _ratio, "",
            *(cases.wanted(name).cpu for name in _OTHERS)),
        row("A pointer appears on an idle screen after", [worst("appeared", ["*/pointer"])], "{:.2f}".format, " s", cases.APPEARED),
    ]


# What the rows are of.
FIGURES = (
    "Medians of the rounds, with the smallest and the largest in brackets. Of all cases that a row is about, it has the worst. Drawings "
    "are 64x64 pixels in place, in region mode and in a dma-buf, at 1080p and 4K (120 a second: 1080p), seen by a VNC, D-Bus, SPICE "
    "or GTK client of a QEMU without OpenGL; a front end that imports the dma-buf has rows of its own below. What a refresh holds, and "
    "the CPU times, are those of a vGPU in region mode with one VNC client, at 1080p (held: and 4K); a ratio below 1 is less CPU time "
    "than stock's.")


def _blank(groups):
    return [Cell(group, scene, {}, {}) for group in groups for scene in group.scenes]


def row_count(groups):
    """Returns how many rows the published report has, whatever is measured."""
    cells, heads = _blank(groups), 2
    return len(figures(cells)) + sum(len(rows) - heads for _, _, rows in sections(cells, published=True))


def figure_table(cells):
    """Returns the same as a table."""
    return table(["", "stock", "library", "wanted"], figures(cells))
