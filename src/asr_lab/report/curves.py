"""What a run saw over its training, one curve per configuration: mean over seeds and their range."""

import math

import numpy as np

from asr_lab.report.collect import Cell
from asr_lab.report.configurations import Configuration
from asr_lab.report.svg_lines import Line

_POINTS = 60  # on a chart over seconds, where seeds were measured at different times


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
