"""What a configuration costs against what it makes wrong, and which of them nobody beats on both."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from asr_lab.report.configurations import Configuration
from asr_lab.report.figures import Figure
from asr_lab.report.formats import between, percent, seconds, short
from asr_lab.report.stats import Interval
from asr_lab.report.svg import (
    WIDTH,
    Axis,
    apart,
    cut,
    frame,
    linear,
    logarithmic,
    marker,
    points,
    tag,
    text_at,
)

# Columns of a configuration: what it is, and how it is written.
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "seconds/train": ("training time, s", seconds),
    "parameters": ("parameters", short),
    "encoder/macs_per_audio_second": ("MACs per second of audio", short),
    "peak_memory_mb": ("peak memory, MB", short),
}
_SAME = 1.05  # costs closer than this are one and the same
_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 320, 44, 150, 30, 46
_MANY = 60  # points whose intervals would hide each other


class Point(NamedTuple):
    """One configuration."""

    number: int  # among the configurations, for its sign
    label: str
    cost: float
    rate: Interval


class Cost(NamedTuple):
    """One kind of cost."""

    key: str
    name: str
    points: list[Point]
    front: list[Point]  # from cheap to costly

    def show(self, value: float) -> str:
        return COSTS[self.key][1](value)


def costs(rows: Sequence[Configuration]) -> list[Cost]:
    """Those costs in which configurations differ; a mean over seeds each."""
    found = []
    for key, (name, _) in COSTS.items():
        there = [
            Point(i, row.short, cost, row.rate)
            for i, row in enumerate(rows)
            if math.isfinite(cost := row.columns[key].mean) and cost > 0 and math.isfinite(row.rate.value)
        ]
        if len(there) > 1 and max(p.cost for p in there) > _SAME * min(p.cost for p in there):
            found.append(Cost(key, name, there, front(there)))
    return found


def front(found: Sequence[Point]) -> list[Point]:
    """The Pareto front: points that no other one beats in cost without losing in rate, or the other way round."""
    best, kept = math.inf, []
    for point in sorted(found, key=lambda p: (p.cost, p.rate.value, p.number)):
        if point.rate.value < best:
            kept.append(point)
            best = point.rate.value
    return kept


def chart(cost: Cost, rate: str) -> Figure:
    """Each configuration with its interval; the front as steps, its points named."""
    title = f"Test {rate} against {cost.name}"
    few = len(cost.points) <= _MANY
    x_axis, y_axis = _axes(cost, rate, few)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + x_axis.at(x) * (WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - y_axis.at(y) * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [frame(title, _HEIGHT, "The configurations of the front follow as a table.")]
    for mark in y_axis.marks:
        y = at(x_axis.low, mark)[1]
        parts.append(tag("line", cls="grid", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y))
        parts.append(text_at(y_axis.show(mark), _LEFT - 6, y + 4, anchor="end"))
    parts += [text_at(x_axis.show(m), at(m, 0)[0], _HEIGHT - _BOTTOM + 18, anchor="middle") for m in x_axis.marks]
    parts.append(text_at(f"test {rate} %", 4, 13))
    parts.append(text_at(cost.name, (_LEFT + WIDTH - _RIGHT) / 2, _HEIGHT - 8, anchor="middle"))
    parts.append(tag("polyline", cls="front", points=points(_steps(cost.front, at, x_axis.high))))
    for p in cost.points:
        (x, y), colour = at(p.cost, p.rate.value), f"c{p.number % 7}"
        if few and math.isfinite(p.rate.low):
            low, high = at(p.cost, p.rate.low)[1], at(p.cost, p.rate.high)[1]
            parts.append(tag("line", cls=f"whisker {colour}", x1=x, x2=x, y1=low, y2=high))
        note = f"{p.label}: {cost.show(p.cost)}, {percent(p.rate.value)} %"
        parts.append(marker(p.number, x, y, 4.5 if few else 3, title=note))
    parts += _names(cost.front, at)
    rows = [[p.label, cost.show(p.cost), percent(p.rate.value), between(p.rate)] for p in cost.front]
    heads = ["on the front", cost.name, f"test {rate} %", "interval"]
    return Figure(title, Markup("\n").join([*parts, Markup("</svg>")]), heads, rows)


def _axes(cost: Cost, rate: str, few: bool) -> tuple[Axis, Axis]:
    xs = [p.cost for p in cost.points]
    rates = [v for p in cost.points for v in (p.rate if few else p.rate[:1]) if math.isfinite(v)]
    wide = max(xs) / min(xs) >= 5
    x_axis = logarithmic(min(xs), max(xs), cost.name, room=1.15) if wide else linear(min(xs), max(xs), cost.name, n=3)
    # One configuration that went astray would press all others into a line.
    return x_axis, linear(min(rates), min(max(rates), 1.0), f"test {rate} %", times=100)


def _steps(front: Sequence[Point], at: Callable, end: float) -> list[tuple[float, float]]:
    path = []
    for point, after in zip(front, [*front[1:], None], strict=True):
        path += [at(point.cost, point.rate.value), at(after.cost if after else end, point.rate.value)]
    return path


def _names(front: Sequence[Point], at: Callable) -> list[Markup]:
    """At the right, joined to their points."""
    ends = apart([at(p.cost, p.rate.value)[1] for p in front], _HEIGHT - _BOTTOM - 2.0)
    edge, parts = WIDTH - _RIGHT + 12, []
    for p, end in zip(front, ends, strict=True):
        x, y = at(p.cost, p.rate.value)
        parts.append(tag("polyline", cls=f"lead c{p.number % 7}", points=points([(x, y), (edge, end)])))
        parts.append(text_at(cut(p.label, 18), edge + 3, end + 4, title=p.label))
    return parts
