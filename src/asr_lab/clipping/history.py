"""Thresholds that follow the norms of earlier steps: a percentile, a multiple of the median, a z-score."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from asr_lab.clipping import global_norm, gradients, positive, scale_to
from asr_lab.types import ClipReport


class Norms:
    """The last `window` finite norms; a tensor that moves to the device of what is added."""

    def __init__(self, window: int):
        if window < 2:
            raise ValueError(f"clipping.window must be at least 2 steps, {window} came")
        self.values = torch.full((window,), torch.nan)  # NaN where nothing has been yet
        self.count = torch.zeros((), dtype=torch.long)  # finite norms so far

    def add(self, norm: Tensor) -> None:
        self.to(norm.device)
        finite = norm.isfinite()
        at = (self.count % len(self.values))[None]
        self.values.scatter_(0, at, torch.where(finite, norm, self.values.gather(0, at)[0])[None].float())
        self.count += finite

    def to(self, device: torch.device) -> None:
        self.values, self.count = self.values.to(device), self.count.to(device)

    def quantile(self, q: float) -> Tensor:
        """() NaN if there is none"""
        return self.values.nanquantile(q)

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values.cpu().clone(), "count": self.count.cpu().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values, self.count = state["values"].clone(), state["count"].clone()


def clip_to(grads: list[Tensor], norm: Tensor, threshold: Tensor) -> ClipReport:
    """Norm clipping to a threshold that may be infinite; `norm` is that of `grads`"""
    scale = scale_to(grads, norm, threshold)
    return ClipReport(norm, norm * scale, scale < 1)


class AutoClipping:
    """The threshold is a percentile of all norms so far, this step's included (Seetharaman et al. 2020, AutoClip).

    "So far" is the last `window` steps; the paper's is the whole training.
    """

    def __init__(self, percentile: float, window: int):
        if not 0 <= percentile <= 100:
            raise ValueError(f"clipping.percentile is between 0 and 100, {percentile} came")
        self.percentile, self.norms = percentile, Norms(window)

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        grads = gradients(parameters)
        norm = global_norm(grads)
        self.norms.add(norm)
        threshold = self.norms.quantile(self.percentile / 100)
        # The percentile may be this very norm: then nothing is to be done, whatever rounding says.
        threshold = torch.where(threshold >= norm, torch.inf, threshold)
        return clip_to(grads, norm, threshold)

    def state_dict(self) -> dict[str, Any]:
        return self.norms.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.norms.load_state_dict(state)


class MedianClipping:
    """The threshold is `factor` times the median of the last `window` norms before this one; none until there are
    `warmup` of them. After icefall's optimizer (Povey 2022), which takes the median anew every `window` steps."""

    def __init__(self, factor: float, window: int, warmup: int):
        positive(factor=factor)
        if not 1 <= warmup <= window:
            raise ValueError(f"clipping.warmup is between 1 and clipping.window={window} steps, {warmup} came")
        self.factor, self.warmup, self.norms = factor, warmup, Norms(window)

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        grads = gradients(parameters)
        norm = global_norm(grads)
        self.norms.to(norm.device)
        known = self.norms.count >= self.warmup
        threshold = torch.where(known, self.factor * self.norms.quantile(0.5), torch.inf)
        self.norms.add(norm)
        return clip_to(grads, norm, threshold)

    def state_dict(self) -> dict[str, Any]:
        return self.norms.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.norms.load_state_dict(state)


class ZClipping:
    """Norms that stand out are brought back by how much they do (Kumar et al. 2025, ZClip).

    With m and s, the exponential means of norms and of their squared distance from m, and z = (||g|| - m) / s: if z is
    above `z_max`, ||g|| becomes m + s z_max^2 / z. The clipped norm goes into the means, m <- alpha m + (1 - alpha)
    ||g||. They begin as mean and variance of the first `warmup` norms, which pass.
    """

    def __init__(self, z_max: float, alpha: float, warmup: int):
        positive(z_max=z_max)
        if not 0 <= alpha < 1:
            raise ValueError(f"clipping.alpha is at least 0 and below 1, {alpha} came")
        if warmup < 2:
            raise ValueError(f"clipping.warmup must be at least 2 steps, {warmup} came")
        self.z_max, self.alpha, self.warmup = z_max, alpha, warmup
        self.first = Norms(warmup)
        self.mean, self.variance = torch.zeros(()), torch.zeros(())

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        grads = gradients(parameters)
        norm = global_norm(grads)
        self.first.to(norm.device)
        self.mean, self.variance = self.mean.to(norm.device), self.variance.to(norm.device)
        deviation = self.variance.sqrt()
        z = (norm - self.mean) / (deviation + 1e-12)
        begun = self.first.count >= self.warmup
        threshold = torch.where(begun & (z > self.z_max), self.mean + deviation * self.z_max**2 / z, torch.inf)
        report = clip_to(grads, norm, threshold)
        self._learn(report.norm_after, begun)
        return report

    def _learn(self, norm: Tensor, begun: Tensor) -> None:
        finite = norm.isfinite()
        mean = self.alpha * self.mean + (1 - self.alpha) * norm
        variance = self.alpha * self.variance + (1 - self.alpha) * (norm - mean).square()
        # Until it has begun, `first` collects; afterwards it stands.
        self.first.add(torch.where(begun, torch.nan, norm))
        own = self.first.values
        mean, variance = torch.where(begun, mean, own.nanmean()), torch.where(begun, variance, own.var(correction=0))
        ready = finite & (self.first.count >= self.warmup)
        self.mean, self.variance = torch.where(ready, mean, self.mean), torch.where(ready, variance, self.variance)

    def state_dict(self) -> dict[str, Any]:
        return {
            "first": self.first.state_dict(),
            "mean": self.mean.cpu().clone(),
            "variance": self.variance.cpu().clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first.load_state_dict(state["first"])
        self.mean, self.variance = state["mean"].clone(), state["variance"].clone()
