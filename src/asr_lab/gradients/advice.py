"""What a clipping threshold was, or would have been, in a training whose gradient norms are known."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from asr_lab.gradients.record import Floats, Record

NET, LIMITER = 0.05, 0.5
ROLES = ("inert", "safety net", "in between", "limiter")
SUMMARY_PERCENTILES = (1, 10, 50, 90, 99)


class Threshold(NamedTuple):
    """A threshold of the global norm against recorded norms."""

    value: float
    clipped: float  # share of steps
    kept: float  # mean of min(1, threshold / norm) over all steps: what is left of a step's length
    role: str  # one of ROLES


def role(clipped: float) -> str:
    """`inert`: never clips; `safety net`: under 5 % of steps; `limiter`: over 50 %, the threshold is the step's length;
    `in between`: neither."""
    if clipped == 0:
        return "inert"
    return "safety net" if clipped < NET else "limiter" if clipped > LIMITER else "in between"


def usable(record: Record) -> np.ndarray:
    """(N,) bool: steps with a finite norm that is not 0"""
    norms = record.column("norm_before")
    return np.isfinite(norms) & (norms > 0)


def thresholds(norms: Floats, values: Iterable[float]) -> list[Threshold]:
    """`norms` (N,) before clipping, finite"""
    found = []
    for value in values:
        clipped = float((norms > value).mean())
        kept = float(np.minimum(1.0, value / np.maximum(norms, np.finfo(np.float32).tiny)).mean())
        found.append(Threshold(float(value), clipped, kept, role(clipped)))
    return found


def suggested(norms: Floats, percentiles: Iterable[float]) -> list[float]:
    """A threshold at each percentile of `norms` (N,), to two significant digits, each once, rising."""
    return sorted({float(f"{np.percentile(norms, p):.2g}") for p in percentiles})


def percentiles(norms: Floats, wanted: Iterable[float]) -> dict[str, float]:
    return {f"{p:g}": float(np.percentile(norms, p)) for p in wanted}


def summary(record: Record, counts: dict[str, int]) -> dict[str, Any]:
    """What a run's clipping did: shares of all its steps (`counts` of the task), percentiles of the recorded norms, the
    mean share that clipping kept of a step's length, and the role of the choice."""
    there, steps = usable(record), max(1, counts["steps"])
    before, after = record.column("norm_before")[there], record.column("norm_after")[there]
    clipped = counts["clipped"] / steps
    return {
        "norm": percentiles(before, SUMMARY_PERCENTILES) if len(before) else {},
        "kept": float((after.astype(np.float64) / before).mean()) if len(before) else None,
        "clipped": clipped,
        "skipped": (counts["skipped"] + counts["nonfinite"]) / steps,
        "role": role(clipped),
    }
