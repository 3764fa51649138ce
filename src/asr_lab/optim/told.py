"""Learning-rate schedules that listen to the training: to its validations, or to the loss and gradient of each step.

Their state is in every checkpoint, because torch's LambdaLR saves the attributes of what computes its factors.
"""

import math
from collections.abc import Callable
from typing import Any

from asr_lab.optim.schedules import Warmup


class Plateau(Warmup):
    """The factor is multiplied by `factor` whenever the score has not improved for more than `patience` validations, as
    torch's ReduceLROnPlateau does it, but not below `minimum`; then `cooldown` validations do not count.

    Improved: by more than `threshold`, relative to the best score so far (`threshold_mode: rel`) or absolute (`abs`). A
    score that is no number is no improvement. Validations before the end of the warm-up are not looked at.
    """

    def __init__(
        self, monitor: str, mode: str, factor: float, patience: int, threshold: float, threshold_mode: str,
        cooldown: int, minimum: float, warmup: float,
    ):  # fmt: skip
        super().__init__(warmup, "step")
        for name, value, known in (("mode", mode, ("min", "max")), ("threshold_mode", threshold_mode, ("rel", "abs"))):
            if value not in known:
                raise ValueError(f"schedule.{name}={value}; choose from: {', '.join(known)}")
        if not 0 < factor < 1:
            raise ValueError(f"schedule.factor is above 0 and below 1, {factor} came")
        if patience < 0 or cooldown < 0 or not threshold >= 0:
            raise ValueError(
                "schedule: patience, cooldown and threshold are not negative; "
                f"{patience}, {cooldown} and {threshold} came"
            )
        if not 0 <= minimum <= 1:
            raise ValueError(f"schedule.minimum is a share of the peak learning rate, between 0 and 1, {minimum} came")
        self.monitor, self.mode, self.shrink, self.minimum = monitor, mode, factor, minimum
        self.patience, self.cooldown = patience, cooldown
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.scale, self.best = 1.0, math.inf if mode == "min" else -math.inf
        self.n_bad = self.n_cooling = 0

    def after(self, t: int, n: int) -> float:
        return self.scale

    def by_scores(self, scores: dict[str, float], step: int) -> None:
        """One validation, after `step` optimizer steps."""
        if step < self.n_warmup:
            return
        score = scores[self.monitor]
        if self._is_better(score):
            self.best, self.n_bad = score, 0
        else:
            self.n_bad += 1
        if self.n_cooling:
            self.n_cooling, self.n_bad = self.n_cooling - 1, 0
        if self.n_bad > self.patience:
            self.scale = max(self.scale * self.shrink, self.minimum)
            self.n_bad, self.n_cooling = 0, self.cooldown

    def _is_better(self, score: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "abs" or math.isinf(self.best):
            return sign * score < sign * self.best - (self.threshold if math.isfinite(self.best) else 0)
        return sign * score < sign * self.best * (1 - sign * self.threshold)


class Polyak(Warmup):
    """The step size min(lr, (f - best_loss) / (c ||g||^2)), f the loss of the step's batches and g their gradient as
    clipped: SPS_max of Loizou et al. (2021), lr being its bound. Never negative.

    `best_loss` is the least that the loss of a batch can be, 0 for nearly all. Meant for plain SGD: other optimizers
    scale their steps by themselves, and the formula then knows nothing of what they do.
    """

    def __init__(self, best_loss: float, c: float):
        super().__init__(0.0, "step")
        if not c > 0 or not math.isfinite(best_loss):
            raise ValueError(f"schedule: c is positive, best_loss a number; {c} and {best_loss} came")
        self.best_loss, self.c = best_loss, c

    def after(self, t: int, n: int) -> float:
        return 1.0

    def by_gradient(self, lr: float, loss: float, norm: float) -> float:
        """Factor on `lr` of the present step, from its loss and its gradient's 2-norm"""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return 0.0  # the task leaves the step out
        gap, slope = max(0.0, loss - self.best_loss), self.c * norm**2 * lr
        return min(1.0, gap / slope) if slope > 0 else 1.0


def set_lr(scheduler: Any, factor: Callable[[float], float]) -> None:
    """Of all groups, now: what each began with, times the factor that is found for it."""
    for group, lr in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, strict=True):
        group["lr"] = lr * factor(lr)
