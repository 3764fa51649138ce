"""The picture of clip-advice: norms over a training, and the share of clipped steps against the threshold."""

from pathlib import Path
from typing import Any

import numpy as np

from asr_lab.gradients.advice import LIMITER, NET
from asr_lab.gradients.groups import Group
from asr_lab.inspect.pictures import new_figure, save

# Okabe & Ito's colours, which colour-blind people can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def draw(target: Path, groups: list[Group], values: list[float]) -> Path:
    """Raises ConfigError where matplotlib is missing or nothing can be written there."""
    figure = new_figure((11.5, 4.6))
    left, right = figure.subplots(1, 2)
    low = min(np.quantile(g.norms, 0.001) for g in groups)
    high = max(np.quantile(g.norms, 0.999) for g in groups)
    for group, colour in zip(groups, _colours(len(groups)), strict=True):
        _history(left, group, colour)
        norms = np.sort(group.norms)
        right.step(norms, 100 * (1 - np.arange(1, len(norms) + 1) / len(norms)), color=colour, label=group.name)
    for value in (v for v in values if low / 2 < v < 2 * high):
        left.axhline(value, color="#888888", linewidth=0.7, linestyle="--", zorder=0)
        left.annotate(f"{value:g}", (1.005, value), xycoords=("axes fraction", "data"), fontsize=8, va="center")
    left.set(yscale="log", xlabel="step", ylabel="global norm before clipping", ylim=(low / 2, 2 * high))
    left.set_title("Norms, running median of 25 steps; dashed: thresholds", fontsize=10)
    right.axhspan(100 * LIMITER, 100, color="#d55e00", alpha=0.08, linewidth=0)
    right.axhspan(0, 100 * NET, color="#009e73", alpha=0.12, linewidth=0)
    for height, text in ((100 * (LIMITER + 1) / 2, "limiter"), (100 * NET / 2, "safety net")):
        right.annotate(text, (0.99, height), xycoords=("axes fraction", "data"), ha="right", va="center", fontsize=8)
    right.set(xscale="log", xlabel="threshold of the global norm", ylabel="steps clipped, %", ylim=(0, 100))
    right.set_xlim(low / 2, 2 * high)
    right.set_title("What a threshold would have clipped", fontsize=10)
    if len(groups) > 1:
        right.legend(frameon=False, fontsize=9, loc="center right")
    return save(target, figure)


def _history(axes: Any, group: Group, colour: str) -> None:
    record = group.example.record
    steps, norms = record.steps, record.column("norm_before").astype(np.float64)
    there = np.isfinite(norms) & (norms > 0)
    steps, norms = steps[there], norms[there]
    axes.plot(steps, norms, color=colour, linewidth=0.5, alpha=0.3)
    n = min(25, len(norms))
    if n:
        medians = np.median(np.lib.stride_tricks.sliding_window_view(norms, n), axis=1)
        axes.plot(steps[n // 2 : n // 2 + len(medians)], medians, color=colour, linewidth=1.4)


def _colours(n: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(n)]
