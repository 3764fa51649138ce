"""Notices steps that are not finite, without waiting for the device, and has the first of them examined."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asr_lab.gradients.forensics import Verdict
from asr_lab.gradients.replay import Micro

# With a loss scale, so much of the steps in a row that end a training is more than the scale finding its place.
PATIENCE = 0.75


class Step(NamedTuple):
    """A step as it was taken, before its weights moved; tensors stay on the device."""

    step: int
    lr: float
    loss_scale: float
    numbers: Tensor  # (5,) loss, norms before and after clipping, clipped, skipped
    norms: Tensor  # (P,) of each parameter's gradient, before clipping
    micros: Sequence[Micro]


class Incidents:
    """Calls `examine(step, numbers, n_later)` for the first step of a row without a finite loss and gradient, at most
    `most` times; `n_later` steps were taken before it was noticed: none on a CPU.

    Under a loss scale gradients that overflow are how the scale is found. They are examined when it cannot sink any
    more, or when a row of them gets near `max_nonfinite_steps`.
    """

    def __init__(self, most: int, max_nonfinite_steps: int, examine: Callable[[Step, list[float], int], None]):
        self.most, self.max_nonfinite_steps, self.examine = most, max_nonfinite_steps, examine
        self.n_examined = 0
        self._flying: deque[tuple[Step, Tensor, Any]] = deque()  # on the way from the device
        self._in_a_row = 0
        self._done_with_row = False

    def add(self, step: Step, scaled: bool) -> None:
        numbers, done = step.numbers, None
        if numbers.is_cuda:
            numbers = numbers.to("cpu", non_blocking=True)
            done = torch.cuda.Event()
            done.record()
        self._flying.append((step, numbers, done))
        while self._flying and (self._flying[0][2] is None or self._flying[0][2].query()):
            arrived, numbers, _ = self._flying.popleft()
            self._check(arrived, numbers.tolist(), step.step - arrived.step, scaled)

    def finish(self, scaled: bool) -> None:
        """Waits for what is still on its way."""
        while self._flying:
            step, numbers, done = self._flying.popleft()
            if done is not None:
                done.synchronize()
            self._check(step, numbers.tolist(), len(self._flying), scaled)

    def _check(self, step: Step, numbers: list[float], n_later: int, scaled: bool) -> None:
        loss, norm = numbers[:2]
        if math.isfinite(loss) and math.isfinite(norm):
            self._in_a_row, self._done_with_row = 0, False
            return
        self._in_a_row += 1
        if self._done_with_row or self.n_examined >= self.most:
            return
        settling = scaled and step.loss_scale > 1 and self._in_a_row <= PATIENCE * self.max_nonfinite_steps
        if settling and math.isfinite(loss):
            return
        self._done_with_row = True
        self.n_examined += 1
        self.examine(step, numbers, n_later)


def folder_of(run: Path, step: int, rank: int) -> Path:
    """Where a step's evidence goes: each process keeps its own batches."""
    return run / "forensics" / (f"step_{step}" if rank == 0 else f"step_{step}.rank{rank}")


def evidence(
    step: Step, numbers: list[float], n_later: int, task: Any, verdict: Verdict, precision: str
) -> dict[str, Any]:
    """What report.json says. `numbers` are the step's, on the host."""
    names = [name for name, p in task.named_parameters() if p.requires_grad]
    bad = [name for name, finite in zip(names, step.norms.isfinite().tolist(), strict=True) if not finite]
    sizes = {name: float(p.detach().abs().max()) for name, p in task.named_parameters() if p.numel()}
    largest = max(sizes, key=sizes.__getitem__)
    return {
        "step": step.step,
        "verdict": verdict.text,
        "kind": verdict.kind,
        "ids": [list(micro.batch.ids) for micro in step.micros],
        "loss": numbers[0],
        "norm_before": numbers[1],
        "lr": step.lr,
        "loss_scale": step.loss_scale,
        "precision": precision,
        "clipping": type(task.clipper).__name__,
        "n_nonfinite_parameters": len(bad),
        "nonfinite_parameters": bad[:50],
        "largest_weight": {"name": largest, "value": sizes[largest]},
        "n_later_steps": n_later,  # taken before this one was noticed: the weights may have moved
        "replay": verdict.replay and verdict.replay._asdict(),
        "replay_as_trained": verdict.as_trained and verdict.as_trained._asdict(),
    }
