"""Averages that follow the training: exponential (EMA), or uniform over steps or epochs (Polyak, SWA)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


def mixed(average: State, new: State, share: float) -> None:
    """average <- (1 - share) average + share new, in place and in the average's precision"""
    names = list(average)
    olds = [average[name] for name in names]
    news = [new[name].to(average[name]) for name in names]
    # Unlike lerp's two formulas, exact where nothing has changed, and one for every share.
    torch._foreach_add_(olds, torch._foreach_sub(news, olds), alpha=share)  # pyright: ignore[reportPrivateImportUsage]


def wide(state: State) -> State:
    """A copy of what can be averaged, in float32 at least: an average in bfloat16 would soon stand still."""
    floating = {k: v for k, v in state.items() if v.is_floating_point()}
    return {k: v.detach().to(torch.promote_types(v.dtype, torch.float32), copy=True) for k, v in floating.items()}


def mean_of(states: Iterable[State]) -> State:
    """The mean of several states of one model; what is no floating-point number is the last one's."""
    average: State = {}
    last: State = {}
    for n, last in enumerate(states):
        if average:
            mixed(average, last, 1 / (n + 1))
        else:
            average = wide(last)
    return last | {k: v.to(last[k].dtype) for k, v in average.items()}


class RunningAverage:
    """Holds the average of weights and floating-point buffers (running statistics of batch normalisation), and lends it
    to the module for as long as it is validated and saved.

    Costs one more copy of the weights, and while it is lent another one.
    """

    trains_on = True

    def __init__(self) -> None:
        self.n = 0
        self._module: State = {}  # the module's own tensors
        self._average: State = {}
        self._trained: State = {}  # while the module holds the average

    def due(self, step: int) -> bool:
        """Whether the weights after this step, from 1, count."""
        raise NotImplementedError

    def share(self) -> float:
        """Of the new weights, in the average with those of `n` times before; not asked for the first."""
        raise NotImplementedError

    def begin(self, module: nn.Module, n_steps: int, steps_per_epoch: int) -> None:
        self._module = module.state_dict()
        self._average = {k: v.to(self._module[k].device) for k, v in self._average.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        if not self.due(step):
            return
        if self.n:
            mixed(self._average, self._module, self.share())
        else:
            self._average = wide(self._module)
        self.n += 1

    @torch.no_grad()
    def use(self) -> None:
        if self.n and not self._trained:
            self._trained = {k: self._module[k].clone() for k in self._average}
            _put(self._module, self._average)

    @torch.no_grad()
    def release(self) -> None:
        _put(self._module, self._trained)
        self._trained = {}

    def save(self, checkpoint: dict[str, Any]) -> None:
        if not self.n:
            return
        state: State = checkpoint["state_dict"]
        trained = self._trained or {k: state[k] for k in self._average}
        checkpoint["averaging"] = {"n": self.n, "average": self._average, "trained": trained}
        checkpoint["state_dict"] = state | {k: v.to(state[k].dtype) for k, v in self._average.items()}

    def load(self, checkpoint: dict[str, Any]) -> None:
        if "averaging" in checkpoint:
            saved = checkpoint["averaging"]
            self.n, self._average = saved["n"], saved["average"]
            checkpoint["state_dict"] = checkpoint["state_dict"] | saved["trained"]


class ExponentialAverage(RunningAverage):
    """average <- d average + (1 - d) weights after every step, the first weights to begin with.

    d = `decay`, with `warmup` at most (1 + n) / (10 + n) at the n-th time from 0: young averages forget their first
    weights sooner (as in TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, decay: float, warmup: bool):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"averaging.decay is at least 0 and below 1, {decay} came")
        self.decay, self.warmup = decay, warmup

    def due(self, step: int) -> bool:
        return True

    def share(self) -> float:
        return 1 - (min(self.decay, (1 + self.n) / (10 + self.n)) if self.warmup else self.decay)


class UniformAverage(RunningAverage):
    """The mean of the weights after every step (Polyak & Juditsky 1992) or epoch (SWA, Izmailov et al. 2018) from the
    `start` share of the training on. The end of the training counts in any case."""

    def __init__(self, start: float, every: str):
        super().__init__()
        if not 0 <= start < 1:
            raise ValueError(f"averaging.start is a share of the training, at least 0 and below 1, {start} came")
        if every not in ("step", "epoch"):
            raise ValueError(f"averaging.every={every}; choose from: step, epoch")
        self.start, self.every = start, every
        self._first = self._unit = self._last = 1

    def begin(self, module: nn.Module, n_steps: int, steps_per_epoch: int) -> None:
        super().begin(module, n_steps, steps_per_epoch)
        self._first, self._last = round(self.start * n_steps), n_steps
        self._unit = steps_per_epoch if self.every == "epoch" else 1

    def due(self, step: int) -> bool:
        return step >= self._first and (step % self._unit == 0 or step == self._last)

    def share(self) -> float:
        return 1 / (self.n + 1)


def _put(module: State, state: State) -> None:
    for name, value in state.items():
        module[name].copy_(value)
