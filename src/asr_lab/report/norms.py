"""Gradient norms over a training, before and after clipping: one panel per configuration, its seeds together.

From every recorded step (`gradients.npz`, of `gradients=record`) where there is one, else from the epochs' means in
`metrics.jsonl`. Cells that exploded are drawn too: theirs are the norms to look at.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from asr_lab.errors import DataError
from asr_lab.gradients.record import read_steps
from asr_lab.report.collect import Cell
from asr_lab.report.configurations import Configuration
from asr_lab.report.figures import Figure
from asr_lab.report.svg import Axis, cut, frame, logarithmic, points, tag, text_at

FILE = "gradients.npz"
PANELS = 12
_BINS = 40  # of steps, along a panel
_BAND = (5, 95)  # percentiles
_W, _H, _LEFT, _BOTTOM, _TOP = 260, 170, 42, 30, 28


class History(NamedTuple):
    """Norms of one configuration, binned over steps; B bins."""

    label: str
    edges: np.ndarray  # (B + 1,) steps
    before: np.ndarray  # (B, 3) 5th, 50th and 95th percentile before clipping; nan in an empty bin
    after: np.ndarray  # (B,) median after it
    nonfinite: int  # steps without a finite norm, in no percentile
    exploded: int  # cells
    per_step: bool  # or means of epochs


def histories(folder: Path, rows: Sequence[Configuration]) -> tuple[list[History], int]:
    """(histories of the first configurations, in their order; how many more there are).

    Up to a third of them are kept for configurations with exploded cells.
    """
    having = [row for row in rows if any(_recorded(folder, c) for c in row.cells)]
    bad = [row for row in having if any(c.status == "exploded" for c in row.cells)][: PANELS // 3]
    chosen = [row for row in having if row not in bad][: PANELS - len(bad)] + bad
    found = [h for row in having if row in chosen and (h := history(folder, row))]
    return found, len(having) - len(chosen)


def _recorded(folder: Path, cell: Cell) -> bool:
    return (folder / cell.name / FILE).exists() or any("train/grad_norm" in row for row in cell.curve)


def history(folder: Path, row: Configuration) -> History | None:
    """All seeds' norms together; None where none is usable."""
    read = [_norms(folder / c.name, c) for c in row.cells]
    per_step = all(found is None or found[1] for found in read)
    norms = np.concatenate([found[0] for found in read if found] or [np.zeros((0, 3))])
    good = np.isfinite(norms[:, 1:]).all(1) & (norms[:, 1] > 0)
    if not good.any():
        return None
    # A step is half a training when there is one; two ends make a bin of it.
    edges = np.linspace(norms[:, 0].min(), norms[:, 0].max() + 1, _BINS + 1)
    place = np.searchsorted(edges, norms[good, 0], side="right") - 1
    before, after = np.full((_BINS, 3), np.nan), np.full(_BINS, np.nan)
    for b in np.unique(place):
        values = norms[good][place == b]
        before[b] = np.percentile(values[:, 1], (_BAND[0], 50, _BAND[1]))
        after[b] = np.median(values[:, 2])
    exploded = sum(c.status == "exploded" for c in row.cells)
    return History(row.short, edges, before, after, int((~good).sum()), exploded, per_step)


def _norms(folder: Path, cell: Cell) -> tuple[np.ndarray, bool] | None:
    """((N, 3) step, norm before, norm after; whether these are single steps) of one run"""
    try:
        steps, columns = read_steps(folder / FILE)
        return np.stack([steps, columns["norm_before"], columns["norm_after"]], 1).astype(np.float64), True
    except DataError:
        keys = ("step", "train/grad_norm", "train/grad_norm_after")
        rows = [[row[k] for k in keys] for row in cell.curve if all(k in row for k in keys)]
        return (np.array(rows), False) if rows else None


def panels(found: Sequence[History]) -> list[Figure]:
    """One small chart each, all with the same axis of norms."""
    if not found:
        return []
    low = min(np.nanmin(np.fmin(h.before[:, 0], _positive(h.after))) for h in found)
    high = max(np.nanmax(h.before[:, 2]) for h in found)
    y_axis = logarithmic(float(low), float(high), "norm", room=1.2)
    return [_panel(h, y_axis) for h in found]


def _positive(norms: np.ndarray) -> np.ndarray:
    return np.where(norms > 0, norms, np.nan)


def _panel(h: History, y_axis: Axis) -> Figure:
    middles = (h.edges[:-1] + h.edges[1:]) / 2

    def at(step: float, norm: float) -> tuple[float, float]:
        x = _LEFT + (step - h.edges[0]) / (h.edges[-1] - h.edges[0]) * (_W - _LEFT - 8)
        return x, _H - _BOTTOM - y_axis.at(norm) * (_H - _BOTTOM - _TOP)

    title = f"Gradient norm of {h.label} before and after clipping"
    parts = [frame(title, _H, "The numbers follow as a table.", width=_W, cls="chart panel")]
    for mark in y_axis.marks:
        y = at(h.edges[0], mark)[1]
        parts.append(tag("line", cls="grid", x1=_LEFT, x2=_W - 8, y1=y, y2=y))
        parts.append(text_at(y_axis.show(mark), _LEFT - 5, y + 4, anchor="end"))
    there = np.isfinite(h.before[:, 1])
    xs, (low, mid, top), after = middles[there], h.before[there].T, _positive(h.after)[there]
    band = [at(x, y) for x, y in zip(xs, low, strict=True)] + [at(x, y) for x, y in zip(xs, top, strict=True)][::-1]
    parts.append(tag("polygon", cls="band c0", points=points(band)))
    parts.append(tag("polyline", cls="curve c0", points=points([at(x, y) for x, y in zip(xs, mid, strict=True)])))
    line = [at(x, y) for x, y in zip(xs, after, strict=True) if math.isfinite(y)]
    parts.append(tag("polyline", cls="curve c1 dashed", points=points(line)))
    parts.append(text_at(cut(h.label, 34), 4, 16, cls="strong", title=h.label))
    first, last = math.floor(h.edges[0]), math.ceil(h.edges[-1])
    parts.append(text_at(f"{first:,}", _LEFT, _H - 10))
    parts.append(text_at("step", (_LEFT + _W) / 2, _H - 10, anchor="middle"))
    parts.append(text_at(f"{last:,}", _W - 8, _H - 10, anchor="end"))
    svg = Markup("\n").join([*parts, Markup("</svg>")])
    return Figure(title, svg, ["steps", "5 %", "median", "95 %", "median after clipping"], _rows(h))


def _rows(h: History) -> list[list[str]]:
    """Every eighth bin"""
    rows = []
    for b in range(0, len(h.after), 8):
        if math.isfinite(h.before[b, 1]):
            steps = f"{math.floor(h.edges[b]):,} – {math.ceil(h.edges[b + 1]):,}"
            rows.append([steps, *(f"{v:.3g}" for v in (*h.before[b], h.after[b]))])
    return rows
