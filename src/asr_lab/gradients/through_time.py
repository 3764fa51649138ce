"""How large a gradient still is some frames earlier: what vanishes and what explodes in a recurrence.

Pascanu et al. 2013 ("On the difficulty of training recurrent neural networks", equations 4 and 5) write the gradient of
a frame's loss as a sum over lags k, each with a factor d h_t / d s_(t-k): s is what the recurrence carries, h its part
that is the output. Followed here is that factor alone: a random unit vector v on h_t, pulled back to v^T d h_t /
d s_(t-k), whose norm is the gain at lag k. It says what the recurrence does to any gradient, whatever the loss, without
what other layers add. The root mean square over v estimates the Jacobian's Frobenius norm over sqrt(d_hidden).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asr_lab.errors import DataError
from asr_lab.files import write_atomic
from asr_lab.layers.recurrence import Recurrence, State


def log_gain(
    cell: Recurrence, x: Tensor, n_lags: int, n_frames: int, n_directions: int, generator: torch.Generator
) -> Tensor:
    """(U,D_in) what the cell reads -> (K+1,) natural logarithm of the gain at lags 0 to K, min(n_lags, U-1).

    The root mean square over `n_directions` unit vectors, drawn from `generator` (CPU), at each of `n_frames` frames
    from the last back to K. Norms are carried as logarithms, so that nothing under- or overflows; -inf is a gradient
    that is exactly zero.
    """
    with torch.no_grad():
        gates, states = _states(cell, x)
    last = len(x) - 1
    n_lags = min(n_lags, last)
    at = torch.linspace(last, n_lags, min(n_frames, last - n_lags + 1)).round().long().to(x.device)
    at = at.repeat_interleave(n_directions)  # (P,)
    v = torch.randn(len(at), cell.out_dim, generator=generator).to(x)
    pulled = tuple(torch.zeros_like(s[at]) for s in states)
    pulled = (v / v.norm(dim=-1, keepdim=True), *pulled[1:])
    logs = [x.new_zeros(len(at))]
    for lag in range(n_lags):
        # states[k] is what frame k begins with
        pulled = _step_back(cell, gates[at - lag], tuple(s[at - lag] for s in states), pulled)
        norm = torch.cat(pulled, dim=-1).norm(dim=-1)
        pulled = tuple(p / norm.where(norm > 0, 1)[:, None] for p in pulled)
        logs.append(logs[-1] + norm.log())
    rows = torch.stack(logs)  # (K+1, P)
    return 0.5 * ((2 * rows).logsumexp(dim=1) - np.log(len(at)))


def _states(cell: Recurrence, x: Tensor) -> tuple[Tensor, State]:
    """(U,D_in) -> gates (U,n_gates*d_hidden) and the states before each frame, (U,d_hidden) each"""
    gates = cell.project(x[None], torch.ones(1, len(x), dtype=torch.bool, device=x.device))[0]
    state = tuple(x.new_zeros(1, cell.out_dim) for _ in range(cell.n_states))
    before = []
    for u in range(len(x)):
        before.append(state)
        state = cell.step(gates[u : u + 1], state)
    return gates, tuple(torch.cat(s) for s in zip(*before, strict=True))


def _step_back(cell: Recurrence, gates: Tensor, state: State, pulled: State) -> State:
    """`pulled` (P,d_hidden) each, on the state after a frame, to the state before it"""
    with torch.enable_grad():
        state = tuple(s.requires_grad_() for s in state)
        # A sum, not grad_outputs: that path of PyTorch imports SymPy first, which takes seconds.
        total = sum(((a * p).sum() for a, p in zip(cell.step(gates, state), pulled, strict=True)), gates.new_zeros(()))
    found = torch.autograd.grad(total, state, allow_unused=True)
    return tuple(torch.zeros_like(s) if g is None else g for g, s in zip(found, state, strict=True))


class ThroughTime:
    """The gains of a training: `steps` (N,) and `logs` (N,C,K+1), natural logarithms, of each of the C `cells`.

    Of more than `max_rows` rows every second one of the older half goes; the first one stays.
    """

    def __init__(self, cells: list[str], max_rows: int):
        if max_rows < 4:
            raise ValueError(f"through_time.max_rows must be at least 4, {max_rows} came")
        self.cells, self.max_rows = cells, max_rows
        self._rows: list[tuple[int, np.ndarray]] = []

    def add(self, step: int, logs: np.ndarray) -> None:
        """`logs` (C,K+1), of the same lags as before"""
        self._rows.append((step, logs.astype(np.float32)))
        if len(self._rows) > self.max_rows:
            half = len(self._rows) // 2
            self._rows = self._rows[:half:2] + self._rows[half:]

    @property
    def steps(self) -> np.ndarray:
        return np.array([step for step, _ in self._rows], np.int64)

    @property
    def logs(self) -> np.ndarray:
        return np.stack([logs for _, logs in self._rows]) if self._rows else np.zeros((0, len(self.cells), 1))

    def cut(self, step: int) -> None:
        """Forgets what was found after `step` steps: a resumed training takes these steps again."""
        self._rows = [row for row in self._rows if row[0] <= step]

    def write(self, file: Path) -> None:
        """
        Raises:
            DiskFullError: no space; an older file stays.
        """
        arrays: dict[str, Any] = {"cells": np.array(self.cells, dtype=str), "steps": self.steps, "logs": self.logs}
        write_atomic(file, lambda f: np.savez_compressed(f, **arrays))


def read_through_time(file: Path, max_rows: int = 2**31) -> ThroughTime:
    """
    Raises:
        DataError: no such file, or it cannot be read.
    """
    if not file.exists():
        raise DataError(
            f"{file}: gradients were not followed through time; train a recurrent encoder with through_time=probe"
        )
    try:
        with np.load(file, allow_pickle=False) as saved:
            found = ThroughTime([str(name) for name in saved["cells"]], max_rows)
            steps, logs = saved["steps"], saved["logs"]
            if logs.shape[:2] != (len(steps), len(found.cells)) or logs.ndim != 3:
                raise ValueError(f"{logs.shape} gains of {len(steps)} steps and {len(found.cells)} cells")
            found._rows = list(zip(steps.tolist(), logs, strict=True))
    except Exception as error:  # a torn zip file, missing arrays, other shapes
        raise DataError(f"{file}: not a record of gradients through time ({error})") from error
    return found


def reach(logs: np.ndarray, gain: float) -> int | None:
    """The first lag of (K+1,) at which the gain is below `gain` (above it, if that is above 1); None: at none."""
    there = logs > np.log(gain) if gain > 1 else logs < np.log(gain)
    return int(there.argmax()) if there.any() else None
