"""Curves with bands, named at their right ends."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from asr_lab.report.svg import (
    BOTTOM,
    MAX_LINES,
    TOP,
    WIDTH,
    Axis,
    apart,
    cut,
    frame,
    linear,
    marker,
    points,
    style,
    tag,
    text_at,
)

HEIGHT = 320
LEFT, RIGHT = 44, 172
_POINTS = 80  # of a curve; more than that no screen shows
_EDGE = WIDTH - RIGHT + 12  # where names begin
At = Callable[[float, float], tuple[float, float]]


class Line(NamedTuple):
    """A curve with its band over seeds; `xs` rise, all four have one length."""

    label: str
    xs: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def thin(line: Line, n: int = _POINTS) -> Line:
    """At most about `n` points: the last of each stretch, with the whole stretch's extremes as the band, so that no
    peak is lost; the first point stays."""
    if len(line.xs) <= n:
        return line
    step = math.ceil((len(line.xs) - 1) / (n - 1))
    ends = [*range(len(line.xs) - 1, 0, -step)][::-1]
    starts = [1, *(end + 1 for end in ends[:-1])]
    bands = [(min(line.low[a : b + 1]), max(line.high[a : b + 1])) for a, b in zip(starts, ends, strict=True)]
    return Line(
        line.label,
        [line.xs[0], *(line.xs[i] for i in ends)],
        [line.mean[0], *(line.mean[i] for i in ends)],
        [line.low[0], *(low for low, _ in bands)],
        [line.high[0], *(high for _, high in bands)],
    )


def line_chart(
    lines: Sequence[Line],
    title: str,
    x_label: str,
    y_label: str,
    *,
    log: bool = False,
    top: float = 1.0,
    times: float = 100.0,
    numbers: Sequence[int] | None = None,
) -> Markup:
    """Curves with bands, named at their right ends; a line of one point goes across. The first `MAX_LINES` are drawn.
    `numbers` choose their styles; 0, 1, ... without.

    `log`: xs are positive and drawn on a logarithmic axis, with a mark at each point. Above `top` a curve is drawn at
    the edge: before a model has learnt anything it may insert at will. `times`: of shares, drawn in percent.
    """
    numbered = list(zip(lines, range(len(lines)) if numbers is None else numbers, strict=True))[:MAX_LINES]
    styles = [number for line, number in numbered if len(line.xs)]
    lines = [thin(line) for line, _ in numbered if len(line.xs)]
    if not lines:
        return Markup("")
    y_axis = linear(
        min(0.0, *(min(line.low) for line in lines)), min(max(max(line.high) for line in lines), top), y_label, times
    )
    xs = sorted({x for line in lines for x in line.xs})
    marks = linear(xs[0], xs[-1], x_label).marks
    x_axis = Axis(xs[0], xs[-1], xs if log else [m for m in marks if xs[0] <= m <= xs[-1]], x_label, log)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + x_axis.at(x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - y_axis.at(y) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [frame(title, HEIGHT, "The numbers follow as a table."), *_axes(x_axis, y_axis, at)]
    ends = apart([at(line.xs[-1], line.mean[-1])[1] for line in lines], HEIGHT - 6.0)
    for line, number, end in zip(lines, styles, ends, strict=True):
        parts += _curve(line, number, at, (xs[0], xs[-1]), end, points_too=log, times=times)
    return Markup("\n").join([*parts, Markup("</svg>")])


def _axes(x_axis: Axis, y_axis: Axis, at: At) -> list[Markup]:
    parts = []
    for mark in y_axis.marks:
        y = at(x_axis.low, mark)[1]
        parts.append(tag("line", cls="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        parts.append(text_at(y_axis.show(mark), LEFT - 6, y + 4, anchor="end"))
    last = -math.inf
    for mark in x_axis.marks:
        x, said = at(mark, y_axis.low)[0], x_axis.show(mark)
        if x - last > 7 * len(said) + 4:  # marks at the points themselves may be close
            parts.append(text_at(said, x, HEIGHT - BOTTOM + 18, anchor="middle"))
            last = x
    parts.append(text_at(y_axis.label, 4, 13))
    parts.append(text_at(x_axis.label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, anchor="middle"))
    return parts


def _curve(
    line: Line, number: int, at: At, across: tuple[float, float], end: float, points_too: bool, times: float
) -> list[Markup]:
    """One line with its band, and its name at the height `end`"""
    flat, colour = len(line.xs) == 1, style(number)
    xs, mean = (across, [*line.mean] * 2) if flat else (line.xs, line.mean)
    curve, parts = [at(x, y) for x, y in zip(xs, mean, strict=True)], []
    if not flat:  # the bands of several lines across would hide each other
        band = [at(x, y) for x, y in zip(line.xs, line.low, strict=True)]
        band += [at(x, y) for x, y in zip(line.xs, line.high, strict=True)][::-1]
        parts.append(tag("polygon", cls=f"band {colour}", points=points(band)))
    unit = " %" if times == 100 else ""
    note = f"{line.label}: {times * line.mean[0]:.1f}{unit}" if flat else line.label
    parts.append(tag("polyline", cls=f"curve {colour}", points=points(curve), title=note))
    x, y = curve[-1]
    marks = curve if points_too and not flat else [curve[-1]]
    parts += [marker(number, a, b, 3.2) for a, b in marks]
    parts.append(tag("polyline", cls=f"lead {colour}", points=points([(x, y), (_EDGE, end)])))
    parts.append(text_at(cut(line.label, 20), _EDGE + 3, end + 4, title=note))
    return parts
