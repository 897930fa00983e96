"""Plots of results: SVG, written directly, since there is little to draw."""

import math
from html import escape

from bench import cases

# In pixels: what is left of the plot, the plot, a line of it, and what is above and below.
_LEFT, _WIDTH, _LINE, _TOP, _BOTTOM = 250, 460, 34, 64, 40
_COLOURS = {"stock": "#9a9a9a", "library": "#1f6fb4"}
_WANTED = "#c0392b"


class _Plot:
    """A plot with named lines along one axis."""

    def __init__(self, title, names, end, step, form):
        self._end = end
        height = _TOP + _LINE * len(names) + _BOTTOM
        self._bottom = height - _BOTTOM
        whole = _LEFT + _WIDTH + 30
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {height}" width="{whole}" height="{height}" '
            'font-family="sans-serif" font-size="13">',
            f'<rect width="{whole}" height="{height}" fill="white"/>',
            f'<text x="12" y="24" font-size="15" font-weight="bold">{escape(title)}</text>']
        for number in range(round(end / step) + 1):
            x = self._x(number * step)
            self._parts += [
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{self._bottom}" stroke="#dddddd"/>',
                f'<text x="{x:.1f}" y="{self._bottom + 18}" text-anchor="middle">{form(number * step)}</text>']
        for number, name in enumerate(names):
            self._parts.append(f'<text x="{_LEFT - 10}" y="{self.middle(number) + 4}" text-anchor="end">{escape(name)}</text>')

    def _x(self, value):
        return _LEFT + _WIDTH * min(value, self._end) / self._end

    @staticmethod
    def middle(number):
        """Returns the y coordinate of a line."""
        return _TOP + _LINE * number + _LINE // 2

    def bar(self, y, value, colour, height=10):
        """Draws a bar from zero to a value."""
        width = self._x(value) - _LEFT
        self._parts.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}"/>')

    def spread(self, y, spread, colour):
        """Draws a median, and a line from the smallest to the largest."""
        left, middle, right = map(self._x, (spread.smallest, spread.median, spread.largest))
        self._parts += [
            f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{middle:.1f}" cy="{y}" r="5" fill="{colour}"/>']

    def limit(self, value, first, last):
        """Draws the goal of some lines."""
        x, top, bottom = self._x(value), self.middle(first) - _LINE / 2 + 3, self.middle(last) + _LINE / 2 - 3
        self._parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="{_WANTED}" stroke-width="2"/>')

    def legend(self, entries):
        """Draws the legend."""
        x = _LEFT
        for name, colour in entries.items():
            self._parts += [f'<rect x="{x}" y="40" width="12" height="12" fill="{colour}"/>',
                            f'<text x="{x + 18}" y="51">{escape(name)}</text>']
            x += 36 + 8 * len(name)

    def text(self):
        """Returns the file's content."""
        return "\n".join([*self._parts, "</svg>", ""])


def _name(cell):
    front_end, mode, size = cell.group.name.split("/")
    return f"{front_end}, {mode}, {size}, {cell.scene.name}"


def _seen(cells):
    cells = [cell for cell in cells if cell.scene.name.startswith("draws") and cell.spread("library", "shown.part")]
    if not cells:
        return None
    plot = _Plot("Drawings that a client sees", [_name(cell) for cell in cells], 1, 0.25, "{:.0%}".format)
    for number, cell in enumerate(cells):
        for variant, offset in ("stock", -11), ("library", 1):
            spread = cell.spread(variant, "shown.part")
            if spread:
                plot.bar(plot.middle(number) + offset, spread.median, _COLOURS[variant])
        plot.limit(cases.SEEN[cell.scene.rate], number, number)
    plot.legend({**_COLOURS, "wanted": _WANTED})
    return plot.text()


def _cpu(cells):
    cells = [cell for cell in cells if cell.ratio("cpu") and not cell.scene.fault]
    if not cells:
        return None
    longest = max(cell.ratio(path).largest for cell in cells for path in ("cpu", "picture") if cell.ratio(path))
    end = max(2, math.ceil(2 * longest) / 2)
    plot = _Plot("QEMU's CPU time, as a part of stock's", [_name(cell) for cell in cells], end, 0.5, "{:g}".format)
    plot.limit(1, 0, len(cells) - 1)
    for number, cell in enumerate(cells):
        for path, offset, colour in ("cpu", -6, "library"), ("picture", 6, "stock"):
            ratio = cell.ratio(path)
            if ratio:
                plot.spread(plot.middle(number) + offset, ratio, _COLOURS[colour])
    plot.legend({"a second": _COLOURS["library"], "for each picture": _COLOURS["stock"], "stock": _WANTED})
    return plot.text()


def all_of(cells):
    """Yields names, titles and drawings of the plots that have data."""
    for name, title, draw in ("seen", "Drawings that a client sees", _seen), ("cpu", "QEMU's CPU time beside stock's", _cpu):
        drawing = draw(cells)
        if drawing:
            yield name, title, drawing
