"""What a run saw over its training, one curve per configuration: mean over seeds and their range."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from asr_lab.report.collect import Cell
from asr_lab.report.configurations import Configuration
from asr_lab.report.figures import Figure, of_lines
from asr_lab.report.formats import percent, short
from asr_lab.report.svg_lines import Line, line_chart

DRAWN = 7  # in one chart: more are a tangle
FACETS = 6  # charts by epoch
_POINTS = 60  # on a chart over seconds, where seeds were measured at different times


def figures(rows: Sequence[Configuration], swept: Sequence[str], rate: str) -> list[Figure]:
    """The score on the validation set by epoch, for each encoder (or other first factor) apart where there are many
    configurations; by seconds, and the training loss, of the first ones. None of what was not recorded."""
    first = "encoder" if "encoder" in swept else next(iter(swept), "")
    facets = list(dict.fromkeys(r.factors[first] for r in rows)) if first else []
    numbered = list(enumerate(rows))
    parts = {"": numbered}
    if len(rows) > DRAWN and 1 < len(facets) <= FACETS:
        parts = {name: [(i, r) for i, r in numbered if r.factors[first] == name] for name in facets}
    found = [_figure(part, by_epoch, "epoch", f"Validation {rate}", name) for name, part in parts.items()]
    found.append(_figure(numbered, by_seconds, "seconds of training", f"Validation {rate}"))
    found.append(_figure(numbered, loss, "epoch", "Training loss", is_rate=False))
    return [figure for figure in found if figure]


def _figure(
    rows: Sequence[tuple[int, Configuration]],
    make: Callable[[Configuration], Line | None],
    x: str,
    what: str,
    facet: str = "",
    is_rate: bool = True,
) -> Figure:
    """Of the first `DRAWN` that have a curve, in the styles that their places in the ranking give."""
    having = [(i, line) for i, row in rows if (line := make(row))]
    lines = [line._replace(label=_without(line.label, facet)) for _, line in having[:DRAWN]]
    where = f" ({facet})" if facet else ""
    title, y = f"{what} against {x}{where}", f"{what.lower()}{where}"
    if is_rate:
        y = f"val {what.rpartition(' ')[2]} %{where}"
    times, top, show = (100.0, 1.0, percent) if is_rate else (1.0, math.inf, "{:.3g}".format)
    numbers = [i for i, _ in having[:DRAWN]]
    svg = line_chart(lines, title, x, y, times=times, top=top, numbers=numbers)
    more = len(having) - len(lines)
    note = f"{more} more with a higher test rate {'is' if more == 1 else 'are'} not drawn." if more else ""
    return of_lines(title, svg, lines, x, show, short)._replace(note=note)


def _without(label: str, facet: str) -> str:
    """A label without what all of a chart share"""
    return " · ".join(part for part in label.split(" · ") if part != facet) or label


def by_epoch(configuration: Configuration) -> Line | None:
    """`val/<score>` at the epochs that every finished seed reached: a mean over changing seeds would jump."""
    return _by_epoch(configuration, f"val/{configuration.score}")


def by_seconds(configuration: Configuration) -> Line | None:
    """`val/<score>` against seconds of training, interpolated where every finished seed was running."""
    runs = [np.array(sorted(_points(cell, "seconds", f"val/{configuration.score}"))) for cell in configuration.done]
    if not runs or not all(len(run) for run in runs):
        return None
    start, end = max(run[0, 0] for run in runs), min(run[-1, 0] for run in runs)
    xs = np.linspace(start, end, _POINTS) if end > start else np.array([])
    return _line(configuration, xs, np.array([np.interp(xs, run[:, 0], run[:, 1]) for run in runs]))


def loss(configuration: Configuration) -> Line | None:
    """`train/loss` at the epochs that every finished seed reached."""
    return _by_epoch(configuration, "train/loss")


def _by_epoch(configuration: Configuration, key: str) -> Line | None:
    runs = [dict(_points(cell, "epoch", key)) for cell in configuration.done]
    epochs = sorted(set.intersection(*map(set, runs))) if runs else []
    return _line(configuration, np.array(epochs), np.array([[run[e] for e in epochs] for run in runs]))


def _points(cell: Cell, x: str, key: str) -> list[tuple[float, float]]:
    rows = [(row.get(x, math.nan), row.get(key, math.nan)) for row in cell.curve]
    return [(a, b) for a, b in rows if math.isfinite(a) and math.isfinite(b)]


def _line(configuration: Configuration, xs: np.ndarray, ys: np.ndarray) -> Line | None:
    if not len(xs):
        return None
    return Line(configuration.short, xs.tolist(), ys.mean(0).tolist(), ys.min(0).tolist(), ys.max(0).tolist())
