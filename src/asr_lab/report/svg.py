"""Small charts as inline SVG: text and lines only, so they print, scale, and need no script.

Colours are Okabe & Ito's ("Color Universal Design", 2008), told apart by colour-blind readers, given as CSS classes
`c0`..`c6` whose values the page sets for light and dark; a second round is dashed. A chart is 520 units wide, so that
its text is still legible on a phone.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from asr_lab.report.stats import Interval

N_COLOURS = 7
MAX_LINES = 2 * N_COLOURS  # more could not be told apart
WIDTH, _H = 520, 320
_LEFT, _RIGHT, TOP, BOTTOM = 40, 172, 30, 46
SIDE = 22  # room for half a tick's label
_LINE = 15  # least distance of two labels


class Line(NamedTuple):
    """A curve with its band over seeds; `xs` rise, all four have one length."""

    label: str
    xs: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def style(index: int) -> str:
    """CSS classes of the index-th series, the same in every chart and table."""
    return f"c{index % N_COLOURS}" + (" dashed" if index >= N_COLOURS else "")


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """About `n` round numbers from at most `low` to at least `high`."""
    span = high - low if high > low else abs(high) or 1.0
    rough = span / n
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil((low + span) / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def interval_chart(rows: Sequence[tuple[str, Interval, Sequence[float]]], title: str) -> Markup:
    """One row per (label, interval, seeds' values), in percent: a bar for the interval, a dot for the mean, rings for
    the seeds."""
    known = [x for _, i, seeds in rows for x in (*i, *seeds) if math.isfinite(x)]
    if not known:
        return Markup("")
    marks = ticks(100 * min(known), 100 * max(known))
    height = 44 * len(rows) + 44

    def x(share: float) -> float:
        return SIDE + (100 * share - marks[0]) / (marks[-1] - marks[0]) * (WIDTH - 2 * SIDE)

    parts = [frame(title, height)]
    for mark in marks:
        at = x(mark / 100)
        parts.append(tag("line", cls="grid", x1=at, x2=at, y1=8, y2=height - 32))
        parts.append(text_at(f"{mark:g} %", at, height - 14, anchor="middle"))
    for number, (label, interval, seeds) in enumerate(rows):
        y, colour = 44 * number + 38, style(number)
        note = f"{100 * interval.value:.1f} %"
        if math.isfinite(interval.low):
            note += f" ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
            ends = {"x1": x(interval.low), "x2": x(interval.high), "y1": y, "y2": y}
            parts.append(tag("line", cls=f"bar {colour}", title=f"{label}: {note}", **ends))
        parts.append(text_at(cut(label, 34), SIDE, y - 12, cls="strong"))
        parts.append(text_at(note, WIDTH - SIDE, y - 12, anchor="end"))
        parts += [tag("circle", cls=f"ring {colour}", cx=x(s), cy=y, r=4) for s in seeds if math.isfinite(s)]
        if math.isfinite(interval.value):
            parts.append(tag("circle", cls=f"dot {colour}", cx=x(interval.value), cy=y, r=5.5, title=label))
    return Markup("\n").join([*parts, Markup("</svg>")])


def bar_chart(rows: Sequence[tuple[str, Interval]], title: str) -> Markup:
    """One horizontal bar for each (label, interval) of shares, drawn in percent from 0, with the interval as a line."""
    known = [x for _, found in rows for x in found if math.isfinite(x)]
    if not known:
        return Markup("")
    marks = ticks(0, 100 * max(known))
    height = 40 * len(rows) + 34

    def x(share: float) -> float:
        return SIDE + 100 * share / marks[-1] * (WIDTH - 2 * SIDE)

    parts = [frame(title, height)]
    for mark in marks:
        at = x(mark / 100)
        parts.append(tag("line", cls="grid", x1=at, x2=at, y1=4, y2=height - 24))
        parts.append(text_at(f"{mark:g} %", at, height - 8, anchor="middle"))
    for number, (label, found) in enumerate(rows):
        y = 40.0 * number + 20
        if not math.isfinite(found.value):
            continue
        note = f"{100 * found.value:.1f} %"
        box = {"x": x(0), "y": y + 4, "width": x(found.value) - x(0), "height": 10.0}
        parts.append(tag("rect", cls="column c0", title=f"{label}: {note}", **box))
        if math.isfinite(found.low):
            note += f" ({100 * found.low:.1f} to {100 * found.high:.1f})"
            parts.append(tag("line", cls="bar c6", x1=x(found.low), x2=x(found.high), y1=y + 9, y2=y + 9))
        parts.append(text_at(cut(label, 34), SIDE, y, cls="strong"))
        parts.append(text_at(note, WIDTH - SIDE, y, anchor="end"))
    return Markup("\n").join([*parts, Markup("</svg>")])


def line_chart(
    lines: Sequence[Line], title: str, x_label: str, y_label: str, *, log: bool = False, top: float = 1.0
) -> Markup:
    """Curves of shares (drawn in percent) with bands, named at their right ends; a line of one point goes across.

    `log`: xs are positive and drawn on a logarithmic axis, with a mark at each point. Above `top` a curve is drawn at
    the edge: before a model has learnt anything it may insert at will.
    """
    lines = [line for line in lines[:MAX_LINES] if len(line.xs)]
    if not lines:
        return Markup("")
    y_marks = ticks(0, min(100 * max(max(line.high) for line in lines), 100 * top))
    xs = sorted({x for line in lines for x in line.xs})
    x_low, x_high = xs[0], xs[-1]
    x_marks = xs if log else [m for m in ticks(x_low, x_high) if x_low <= m <= x_high]
    scale = math.log10 if log else float

    def at(x: float, share: float) -> tuple[float, float]:
        across = (scale(x) - scale(x_low)) / ((scale(x_high) - scale(x_low)) or 1)
        up = min(100 * share / y_marks[-1], 1)
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), _H - BOTTOM - up * (_H - TOP - BOTTOM)

    parts = [frame(title, _H)]
    for mark in y_marks:
        y = at(x_low, mark / 100)[1]
        parts.append(tag("line", cls="grid", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y))
        parts.append(text_at(f"{mark:g}", _LEFT - 6, y + 4, anchor="end"))
    parts += [text_at(f"{mark:g}", at(mark, 0)[0], _H - BOTTOM + 18, anchor="middle") for mark in x_marks]
    parts.append(text_at(y_label, 4, 13))
    parts.append(text_at(x_label, (_LEFT + WIDTH - _RIGHT) / 2, _H - 8, anchor="middle"))
    ends = _apart([at(line.xs[-1], line.mean[-1])[1] for line in lines])
    for number, line in enumerate(lines):
        parts += _curve(line, style(number), at, (x_low, x_high), ends[number], points=log)
    return Markup("\n").join([*parts, Markup("</svg>")])


def _curve(
    line: Line,
    colour: str,
    at: Callable[[float, float], tuple[float, float]],
    across: tuple[float, float],
    end: float,
    points: bool,
) -> list[Markup]:
    """One line with its band, and its name at the height `end`"""
    flat = len(line.xs) == 1
    xs, mean = (across, [*line.mean] * 2) if flat else (line.xs, line.mean)
    curve, parts = [at(x, y) for x, y in zip(xs, mean, strict=True)], []
    if not flat:  # the bands of several lines across would hide each other
        band = [at(x, y) for x, y in zip(line.xs, line.low, strict=True)]
        band += [at(x, y) for x, y in zip(line.xs, line.high, strict=True)][::-1]
        parts.append(tag("polygon", cls=f"band {colour}", points=_points(band)))
    note = f"{line.label}: {100 * line.mean[0]:.1f} %" if flat else line.label
    parts.append(tag("polyline", cls=f"curve {colour}", points=_points(curve), title=note))
    (x, y), edge = curve[-1], WIDTH - _RIGHT + 12
    marks = curve if points and not flat else [curve[-1]]
    parts += [tag("circle", cls=f"dot {colour}", cx=a, cy=b, r=2.5) for a, b in marks]
    parts.append(tag("polyline", cls=f"lead {colour}", points=_points([(x, y), (edge, end)])))
    parts.append(text_at(cut(line.label, 20), edge + 3, end + 4, title=note))
    return parts


def _apart(ys: Sequence[float]) -> list[float]:
    """Label heights near `ys`, at least a line apart, within the chart."""
    order = sorted(range(len(ys)), key=lambda i: ys[i])
    placed, last = [0.0] * len(ys), -math.inf
    for i in order:
        placed[i] = last = max(ys[i], last + _LINE)
    limit = _H - 6.0
    for i in reversed(order):
        placed[i] = limit = min(placed[i], limit)
        limit -= _LINE
    return placed


def frame(title: str, height: float) -> Markup:
    return Markup('<svg class="chart" role="img" aria-label="{0}" viewBox="0 0 {1} {2}"><title>{0}</title>').format(
        title, WIDTH, height
    )


def tag(name: str, cls: str, title: str = "", **attributes: float | str) -> Markup:
    pairs = Markup(" ").join(
        Markup('{}="{}"').format(k, f"{v:.1f}" if isinstance(v, float) else v) for k, v in attributes.items()
    )
    inside = Markup("<title>{}</title>").format(title) if title else ""
    return Markup('<{0} class="{1}" {2}>{3}</{0}>').format(name, cls, pairs, inside)


def text_at(text: str, x: float, y: float, *, anchor: str = "start", cls: str = "", title: str = "") -> Markup:
    inside = (Markup("<title>{}</title>").format(title) if title else Markup("")) + escape(text)
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(cls, x, y, anchor, inside)


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
