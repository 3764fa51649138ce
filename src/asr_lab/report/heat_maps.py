"""Two factors at a time: the mean score of each pair of their levels, over whatever else was swept.

A map is a table whose squares are coloured, so that it is read aloud, printed and zoomed as any table. Colours are
those of cividis (Nuñez, Anderton & Renslow, PLOS ONE 2018), which rises in lightness alone for colour-blind readers,
and every square has its number.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean, median
from typing import NamedTuple

from asr_lab.report.collect import Cell
from asr_lab.report.configurations import NOTHING, Configuration
from asr_lab.report.failures import WAITING

# Ten even steps of it.
_CIVIDIS = (
    "#00224e",
    "#123570",
    "#3b496c",
    "#575d6d",
    "#707173",
    "#8a8678",
    "#a59c74",
    "#c3b369",
    "#e1cc55",
    "#fee838",
)


class Square(NamedTuple):
    """One pair of levels."""

    value: float  # mean over the configurations that have a result, a share; nan where there is none
    n: int  # configurations with a result
    of: int  # configurations planned
    failed: int  # cells that ended without a result
    waiting: int  # cells that are still to come
    best: bool  # the lowest of the map
    background: str  # CSS colours
    colour: str

    @property
    def partial(self) -> bool:
        """Whether its mean is over fewer cells than were planned."""
        return bool(self.failed or self.waiting)


class HeatMap(NamedTuple):
    """One pair of factors."""

    down: str  # the factor of the rows
    across: str
    rows: list[tuple[str, list[Square]]]
    columns: list[str]
    low: float  # ends of the colours
    high: float
    cut: bool  # higher values than `high` have its colour

    @property
    def partial(self) -> bool:
        return any(s.partial for _, squares in self.rows for s in squares)

    @property
    def averaged(self) -> bool:
        """Whether any square is a mean of several configurations."""
        return any(s.of > 1 for _, squares in self.rows for s in squares)


def heat_maps(configurations: Sequence[Configuration], swept: Sequence[str], cells: Sequence[Cell]) -> list[HeatMap]:
    """A map of every two factors of `swept`; the one with more levels goes down, where there is room."""
    found, named = [], {factor: levels(cells, factor) for factor in swept}
    for a, b in combinations(swept, 2):
        down, across = (a, b) if len(named[a]) >= len(named[b]) else (b, a)
        found.append(_map(configurations, down, across, named[down], named[across]))
    return [m for m in found if math.isfinite(m.low)]


def levels(cells: Sequence[Cell], factor: str) -> list[str]:
    """Its values in planned cells: numbers in their order, words in that of the cells, "–" (no such key) at the end."""
    named = dict.fromkeys(c.factors.get(factor, NOTHING) for c in cells if c.planned)
    return sorted(named, key=lambda v: (v == NOTHING, *_place(v)))


def _place(value: str) -> tuple[bool, float]:
    try:
        return False, float(value)
    except ValueError:
        return True, 0.0


def _map(
    configurations: Sequence[Configuration], down: str, across: str, lines: list[str], columns: list[str]
) -> HeatMap:
    groups: dict[tuple[str, str], list[Configuration]] = {}
    for row in configurations:
        groups.setdefault((row.factors[down], row.factors[across]), []).append(row)
    rates = {pair: [r.rate.value for r in rows if math.isfinite(r.rate.value)] for pair, rows in groups.items()}
    means = {pair: fmean(values) for pair, values in rates.items() if values}
    low, high, cut = _ends([*means.values()])
    best = min(means.values(), default=math.nan)

    def square(pair: tuple[str, str]) -> Square:
        rows, value = groups.get(pair, []), means.get(pair, math.nan)
        open_cells = [c for r in rows for c in r.cells if not c.done]
        waiting = sum(c.status in WAITING for c in open_cells)
        background, colour = _colours((value - low) / ((high - low) or 1)) if pair in means else ("none", "inherit")
        failed = len(open_cells) - waiting
        return Square(value, len(rates.get(pair, ())), len(rows), failed, waiting, value == best, background, colour)

    rows = [(level, [square((level, c)) for c in columns]) for level in lines]
    return HeatMap(down, across, rows, columns, low, high, cut)


def _ends(values: list[float]) -> tuple[float, float, bool]:
    """(low, high, whether values lie above): a training that went astray would take all contrast from the others."""
    if not values:
        return math.nan, math.nan, False
    low, high = min(values), max(values)
    limit = low + 4 * (median(values) - low)
    return (low, limit, True) if low < limit < high else (low, high, False)


def _colours(share: float) -> tuple[str, str]:
    """(background, text) at 0, which is low and light, to 1, which is dark; their contrast is 4.5 or more."""
    rgb = cividis(1 - min(max(share, 0.0), 1.0))
    return "#{:02x}{:02x}{:02x}".format(*rgb), "#000" if luminance(rgb) > 0.179 else "#fff"


def cividis(at: float) -> tuple[int, int, int]:
    """RGB at 0 (dark blue) to 1 (yellow)"""
    place = at * (len(_CIVIDIS) - 1)
    i = min(int(place), len(_CIVIDIS) - 2)
    a, b = (tuple(int(_CIVIDIS[j][k : k + 2], 16) for k in (1, 3, 5)) for j in (i, i + 1))
    red, green, blue = (round(x + (place - i) * (y - x)) for x, y in zip(a, b, strict=True))
    return red, green, blue


def luminance(rgb: tuple[int, int, int]) -> float:
    """Relative luminance (WCAG 2.2), 0 to 1."""
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in (v / 255 for v in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
