"""What a clipping threshold would have been in a training whose gradient norms are known."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch

from asr_lab.clipping import Clipper

NET, LIMITER = 0.05, 0.5
ROLES = ("inert", "safety net", "in between", "limiter")


class Threshold(NamedTuple):
    """A threshold of the global norm against recorded norms."""

    value: float
    clipped: float  # share of steps
    kept: float  # mean of min(1, threshold / norm) over all steps: what is left of a step's length
    role: str  # one of ROLES


class Replay(NamedTuple):
    """A clipping choice on a recorded sequence of norms."""

    name: str
    clipped: float  # share of steps
    kept: float  # mean of norm after / norm before
    longest: float  # norm after, the largest
    role: str


def role(clipped: float) -> str:
    """`inert`: never clips; `safety net`: under 5 % of steps; `limiter`: over 50 %, the threshold is the step's length;
    `in between`: neither."""
    if clipped == 0:
        return "inert"
    return "safety net" if clipped < NET else "limiter" if clipped > LIMITER else "in between"


def thresholds(norms: np.ndarray, values: Iterable[float]) -> list[Threshold]:
    """`norms` (N,) before clipping, finite"""
    found = []
    for value in values:
        clipped = float((norms > value).mean())
        kept = float(np.minimum(1.0, value / np.maximum(norms, np.finfo(np.float32).tiny)).mean())
        found.append(Threshold(float(value), clipped, kept, role(clipped)))
    return found


def suggested(norms: np.ndarray, percentiles: Iterable[float]) -> list[float]:
    """A threshold at each percentile of `norms` (N,), to two significant digits, each once, rising."""
    return sorted({float(f"{np.percentile(norms, p):.2g}") for p in percentiles})


def replay(name: str, clipper: Clipper, norms: np.ndarray) -> Replay:
    """The choice applied to a gradient of one element with each of `norms` (N,), in order.

    Right for choices that look at the global norm alone. It says what would have been clipped had weights moved as they
    did; in a training of its own the norms would be others.
    """
    parameter = torch.nn.Parameter(torch.ones(1))
    after, clipped = np.empty(len(norms)), np.empty(len(norms), bool)
    for i, norm in enumerate(norms.tolist()):
        parameter.grad = torch.tensor([norm])
        report = clipper([parameter])
        after[i], clipped[i] = report.norm_after, report.clipped
    kept = after / np.maximum(norms, np.finfo(np.float32).tiny)
    share = float(clipped.mean())
    return Replay(name, share, float(kept.mean()), float(after.max()), role(share))


def replays(choices: dict[str, Callable[[], Clipper]], norms: np.ndarray) -> list[Replay]:
    return [replay(name, make(), norms) for name, make in choices.items()]
