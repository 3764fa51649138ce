"""The report of toy landscapes: how much of the excess loss is left, the median over seeds, landscape by landscape."""

import math
from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from asr_lab.report.configurations import Configuration
from asr_lab.report.formats import NOTHING, percent, seconds
from asr_lab.report.summary import Summary

HEADINGS = ("test gap", "lowest", "highest", "clipped steps %", "training")
DIVERGED = math.inf  # the gap of a seed that exploded


class Row(NamedTuple):
    """One configuration."""

    landscape: str
    gaps: list[float]  # of the seeds that ended, by training to its end or by an explosion
    shown: list[str]  # the columns of `HEADINGS`
    configuration: Configuration


def context(summary: Summary) -> dict[str, Any]:
    """What the template shows."""
    rows = ranked(summary)
    return {"s": summary, "e": summary.experiment, "headings": HEADINGS, "answers": list(answers(rows)), "rows": rows}


def table(summary: Summary) -> Table:
    """The same for the terminal."""
    rows = ranked(summary)
    gaps = dict.fromkeys(gap for row in rows for gap in row.configuration.gaps)
    out = Table(
        title=Text(summary.experiment.name),
        caption=Text("\n".join([*answers(rows), *gaps])),
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in summary.swept or ["configuration"]:
        out.add_column(Text(name), no_wrap=True)
    for name in [*HEADINGS, "seeds"]:
        out.add_column(Text(name), justify="right", no_wrap=True)
    for row in rows:
        c = row.configuration
        cells = [*(c.factors.values() or ["all"]), *row.shown, f"{len(c.done)}/{len(c.cells)}"]
        out.add_row(*map(Text, cells), style="" if c.done else "dim")
    return out


def ranked(summary: Summary) -> list[Row]:
    """Landscapes in the plan's order, and on each the configurations from the lowest median gap to the highest."""
    rows = [_row(c, summary.fixed) for c in summary.configurations]
    order = {c.factors.get("landscape", ""): i for i, c in reversed(list(enumerate(summary.experiment.cells)))}
    return sorted(rows, key=lambda r: (order.get(r.landscape, 0), not r.gaps, median(r.gaps or [DIVERGED])))


def answers(rows: list[Row]) -> Iterator[str]:
    """A sentence for each landscape."""
    for landscape in dict.fromkeys(r.landscape for r in rows):
        best = next((r for r in rows if r.landscape == landscape and r.gaps), None)
        if best is None:
            yield f"{landscape}: no cell has ended yet."
            continue
        chosen = {k: v for k, v in best.configuration.factors.items() if k != "landscape"}
        label = ", ".join(f"{k}={v}" for k, v in chosen.items()) or "the only configuration"
        n = len(best.gaps)
        yield f"{landscape}: the lowest gap is {gap(median(best.gaps))}, by {label} ({_of(n)})."


def gap(value: float) -> str:
    """`0.0123`, `2.3e-05`, `diverged`"""
    return "diverged" if math.isinf(value) else NOTHING if math.isnan(value) else f"{value:.3g}"


def _of(n: int) -> str:
    return f"median of {n} seeds" if n > 1 else "one seed"


def _row(c: Configuration, fixed: dict[str, str]) -> Row:
    found = [cell.metrics.get("test/gap", math.nan) for cell in c.done]
    found += [DIVERGED for cell in c.cells if cell.status == "exploded"]
    gaps = sorted(g for g in found if not math.isnan(g))
    sides = (median(gaps), gaps[0], gaps[-1]) if gaps else (math.nan,) * 3
    more = [percent(c.columns["train/clipped"].mean), seconds(c.columns["seconds/train"].mean)]
    landscape = c.factors.get("landscape") or fixed.get("landscape", "landscape")
    return Row(landscape, gaps, [*map(gap, sides), *more], c)
