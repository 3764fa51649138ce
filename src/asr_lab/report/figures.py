"""A chart with its numbers: whoever cannot see the one reads the other."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from asr_lab.report.svg import MAX_LINES
from asr_lab.report.svg_lines import Line

_COLUMNS = 8  # of the table under a chart of curves


class Figure(NamedTuple):
    """A picture, and a table that says the same. Empty pictures are false."""

    title: str
    svg: Markup
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __bool__(self) -> bool:
        return bool(self.svg)


def of_lines(
    title: str, svg: Markup, lines: Sequence[Line], x_label: str, show: Callable[[float], str], show_x: Callable = str
) -> Figure:
    """The curves' means at a few of the points that any of them has; a line of one point has one value everywhere."""
    lines = lines[:MAX_LINES]
    xs = sorted({x for line in lines if len(line.xs) > 1 for x in line.xs})
    step = max(1, -(-(len(xs) - 1) // (_COLUMNS - 1)))
    chosen = [*xs[:-1:step], *xs[-1:]]

    def value(line: Line, x: float) -> str:
        if len(line.xs) == 1:
            return show(line.mean[0])
        near = max((i for i, at in enumerate(line.xs) if at <= x), default=None)
        return "" if near is None or x > line.xs[-1] else show(line.mean[near])

    rows = [[line.label, *(value(line, x) for x in chosen)] for line in lines]
    return Figure(title, svg, [x_label, *map(show_x, chosen)], rows)
