"""What looks at a training have seen so far, on the host, and what the detectors say of it."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asr_lab.gradients import detect
from asr_lab.gradients.detect import Finding, Limits
from asr_lab.gradients.units import Units

# Weights that move little because the learning rate is near its end are not stalled.
LEAST_LR = 0.1
# Stands for the norm of a gradient that a parameter did not get.
NONE = -1.0


class Looks:
    """Remembers as many steps and looks as the detectors want; `looks` in a row must agree on a layer or its units."""

    def __init__(self, layers: Sequence[str], of_layer: Sequence[int], looks: int, limits: Limits):
        self.layers, self.looks, self.limits = list(layers), looks, limits
        self._of_layer = np.array(of_layer, int)
        self._steps: deque[tuple[int, float, float]] = deque(maxlen=2 * limits.window)  # step, loss, norm
        self._since = 0  # steps before it have been searched
        self._seen: dict[str, deque[np.ndarray]] = {}
        self._top_lr = 0.0

    def add_steps(self, rows: Sequence[tuple[int, float, float]], lr: float) -> None:
        """(step, loss, gradient norm) each; the highest learning rate of them"""
        self._steps.extend(rows)
        self._top_lr = max(self._top_lr, lr)

    def of_steps(self, ids: Mapping[int, tuple[str, ...]], norms: np.ndarray) -> list[Finding]:
        """Of all steps since the last call. `ids` of their utterances; `norms` (K,P) of the last steps' gradients"""
        if not self._steps:
            return []
        steps, losses, totals = (np.array(x) for x in zip(*self._steps, strict=True))
        limits, last, since = self.limits, int(steps[-1]), self._since
        self._since = last + 1
        found = detect.loss_spikes(steps, losses, since, ids, limits.window, limits.spike)
        return found + detect.exploding(
            last, totals, self.layers, self.by_layer(norms), limits.window, limits.exploding
        )

    def of_layers(self, step: int, norms: np.ndarray) -> list[Finding]:
        """`norms` (K,P) of the last steps' gradients; their median counts as this look's"""
        of_layers = self.by_layer(norms)
        of_layers = of_layers[np.isfinite(of_layers).all(axis=1)]
        if not len(of_layers):
            return []
        median = np.median(of_layers, axis=0)
        seen = self._enough("norms", np.where(median < 0, np.nan, median))
        return [] if seen is None else detect.vanishing(step, self.layers, seen, self.limits.vanishing)

    def of_weights(self, step: int, lr: float, moved: np.ndarray, weights: np.ndarray) -> list[Finding]:
        """(P,), (P,) lengths of a step's changes and of the weights"""
        if lr < LEAST_LR * self._top_lr:
            return []
        ratios = self.by_layer(moved) / np.maximum(self.by_layer(weights), 1e-12)
        seen = self._enough("updates", ratios)
        return [] if seen is None else detect.stalled(step, self.layers, seen, self.limits.stalled)

    def of_units(self, step: int, name: str, units: Units) -> list[Finding]:
        seen, limits = self._enough(f"units of {name}", np.stack(units)), self.limits
        if seen is None:
            return []
        peaks, grads, stuck = seen[:, 0], seen[:, 1], seen[:, 2]
        found = detect.dead(step, name, peaks, grads, limits.dead_peak, limits.dead_share)
        return found + detect.saturated(step, name, stuck, limits.saturated_frames, limits.saturated_share)

    def by_layer(self, of_parameters: np.ndarray) -> np.ndarray:
        """(..., P) lengths -> (..., L); `NONE` where no parameter of a layer has any"""
        has = of_parameters != NONE
        squares = np.square(np.where(has, of_parameters, 0.0), dtype=float)
        of_layers = []
        for i in range(len(self.layers)):
            own = self._of_layer == i
            length = np.sqrt(squares[..., own].sum(axis=-1))
            of_layers.append(np.where(has[..., own].any(axis=-1), length, NONE))
        return np.stack(of_layers, axis=-1)

    def _enough(self, key: str, row: np.ndarray) -> np.ndarray | None:
        """The last looks at something together, when there are enough of them."""
        rows = self._seen.setdefault(key, deque(maxlen=self.looks))
        if rows and rows[-1].shape != row.shape:
            rows.clear()
        rows.append(row)
        return np.stack(list(rows)) if len(rows) == self.looks else None

    def state_dict(self) -> dict[str, Any]:
        return {"steps": list(self._steps), "since": self._since, "top_lr": self._top_lr}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps.clear()
        self._steps.extend(tuple(row) for row in state["steps"])
        self._since, self._top_lr = state["since"], state["top_lr"]


def norms_of(tensors: Sequence[Tensor | None]) -> Tensor:
    """(P,) 2-norm of each; `NONE` where there is none"""
    there = [i for i, x in enumerate(tensors) if x is not None]
    found = [x.coalesce()._values() if x.is_sparse else x for x in tensors if x is not None]
    if not found:
        return torch.full((len(tensors),), NONE)
    lengths = torch.stack([x.float() for x in torch._foreach_norm(found)])  # pyright: ignore
    if len(there) == len(tensors):
        return lengths
    return lengths.new_full((len(tensors),), NONE).index_copy(0, torch.tensor(there, device=lengths.device), lengths)
