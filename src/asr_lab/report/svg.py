"""Small charts as inline SVG: text and shapes only, so they print, scale, and need no script. Here: what all share.

Colours are Okabe & Ito's ("Color Universal Design", 2008), told apart by colour-blind readers, the two lightest darker
than theirs so that all stand out from white (3:1, WCAG 2.2): CSS classes `c0`..`c6`, whose values the page sets. No
chart leaves it to colour: each series has a marker of its own, a second round is dashed, and curves are named at their
ends. A chart is 520 units wide, so that its text is still legible on a phone.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

N_COLOURS = 7
MAX_LINES = 2 * N_COLOURS  # more could not be told apart
WIDTH = 520
TOP, BOTTOM = 30, 46
SIDE = 22  # room for half a tick's label
_LINE = 15  # least distance of two labels
# Outlines of markers of radius 1, one a colour; "" is a circle.
_SHAPES = (
    "",
    "-.9 -.9 H.9 V.9 H-.9Z",
    "0 -1.3 1.3 0 0 1.3 -1.3 0Z",
    "0 -1.2 1.2 .9 -1.2 .9Z",
    "-1.2 -.9 1.2 -.9 0 1.2Z",
    "-1.3 -.45 H-.45 V-1.3 H.45 V-.45 H1.3 V.45 H.45 V1.3 H-.45 V.45 H-1.3Z",
    "0 -1.3 .4 -.4 1.3 0 .4 .4 0 1.3 -.4 .4 -1.3 0 -.4 -.4Z",
)


class Axis(NamedTuple):
    """Where values lie between the ends of a chart; what is beyond an end is drawn at it."""

    low: float
    high: float
    marks: Sequence[float]
    label: str
    log: bool = False
    times: float = 1.0  # what marks are multiplied by to be shown: 100 for shares in percent

    def at(self, value: float) -> float:
        """0 at `low` to 1 at `high`"""
        a, b, x = (self.low, self.high, value) if not self.log else map(math.log10, (self.low, self.high, value))
        return min(max((x - a) / ((b - a) or 1), 0.0), 1.0)

    def show(self, mark: float) -> str:
        return number(mark * self.times)


def linear(low: float, high: float, label: str, times: float = 1.0, n: int = 5) -> Axis:
    """From a round number to another one."""
    marks = [m / times for m in ticks(low * times, high * times, n)]
    return Axis(marks[0], marks[-1], marks, label, times=times)


def logarithmic(low: float, high: float, label: str, room: float = 1.0) -> Axis:
    """Positive values, from `low / room` to `high * room`, with marks at powers of ten, or 1, 2 and 5 times them."""
    low, high = low / room, high * room
    if high <= low:
        low, high = low / 2, high * 2
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5)):
        marks = [m for p in powers for s in steps if low <= (m := s * 10.0**p) <= high]
        if len(marks) >= 3:
            break
    marks = marks or [low, high]
    return Axis(low, high, marks[:: max(1, math.ceil(len(marks) / 7))], label, log=True)


def number(value: float) -> str:
    """As short as can be: `0.1`, `300`, `20k`, `3M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:.4g}"


def style(index: int) -> str:
    """CSS classes of the index-th series; of configurations, the same in every chart and table."""
    index %= MAX_LINES
    return f"c{index % N_COLOURS}" + (" dashed" if index >= N_COLOURS else "")


def marker(index: int, x: float, y: float, r: float, title: str = "") -> Markup:
    """The sign of the index-th series; hollow in the second round."""
    index %= MAX_LINES
    cls = ("dot " if index < N_COLOURS else "ring ") + f"c{index % N_COLOURS}"
    shape = _SHAPES[index % N_COLOURS]
    if not shape:
        return tag("circle", cls=cls, cx=x, cy=y, r=r, title=title)
    at = f"translate({x:.1f} {y:.1f}) scale({r:g})"
    return tag("path", cls=cls, d=f"M{shape}", transform=at, title=title)


def key(index: int) -> Markup:
    """The sign in front of a series' name in a table, which is there to be read: hidden from screen readers."""
    svg = Markup('<svg class="key" viewBox="0 0 14 14" aria-hidden="true">{}</svg>')
    return svg.format(marker(index, 7, 7, 4.5))


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """About `n` round numbers from at most `low` to at least `high`."""
    span = high - low if high > low else abs(high) or 1.0
    rough = span / n
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil((low + span) / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def apart(ys: Sequence[float], limit: float) -> list[float]:
    """Heights of labels near `ys`, at least a line apart, above `limit`."""
    order = sorted(range(len(ys)), key=lambda i: ys[i])
    placed, last = [0.0] * len(ys), -math.inf
    for i in order:
        placed[i] = last = max(ys[i], last + _LINE)
    for i in reversed(order):
        placed[i] = limit = min(placed[i], limit)
        limit -= _LINE
    return placed


def frame(title: str, height: float, description: str = "", width: float = WIDTH, cls: str = "chart") -> Markup:
    """The start of a picture. Its name is `title`; what it shows stands in words or in a table beside it."""
    more = Markup("<desc>{}</desc>").format(description) if description else ""
    start = Markup('<svg class="{}" role="img" aria-label="{}" viewBox="0 0 {:g} {:g}"><title>{}</title>{}')
    return start.format(cls, title, width, height, title, more)


def tag(name: str, cls: str, title: str = "", **attributes: float | str) -> Markup:
    pairs = Markup(" ").join(
        Markup('{}="{}"').format(k, f"{v:.1f}" if isinstance(v, float) else v) for k, v in attributes.items()
    )
    inside = Markup("<title>{}</title>").format(title) if title else ""
    return Markup('<{0} class="{1}" {2}>{3}</{0}>').format(name, cls, pairs, inside)


def text_at(text: str, x: float, y: float, *, anchor: str = "start", cls: str = "", title: str = "") -> Markup:
    inside = (Markup("<title>{}</title>").format(title) if title else Markup("")) + escape(text)
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(cls, x, y, anchor, inside)


def points(pairs: Sequence[tuple[float, float]]) -> str:
    """For a polyline"""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def cut(text: str, width: int) -> str:
    """At most `width` characters; of names joined by dots the longest are shortened, so that all parts are there."""
    parts = text.split(" · ")
    while len(" · ".join(parts)) > width and len(longest := max(parts, key=len)) > 4:
        parts[parts.index(longest)] = (
            longest.removesuffix("…")[:-1] + "…" if longest.endswith("…") else longest[:-2] + "…"
        )
    text = " · ".join(parts)
    return text if len(text) <= width else text[: width - 1] + "…"
