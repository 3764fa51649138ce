"""Learning-rate schedules: step -> factor on the optimizer's lr, from 0. Each YAML is a partial.

The training task gives `total_steps`, and `steps_per_epoch` to those that ask for it.
"""

import math
from collections.abc import Callable

Factor = Callable[[int], float]


def constant(total_steps: int) -> Factor:
    """Factor 1 throughout."""
    return lambda step: 1.0


def warmup_cosine(total_steps: int, warmup: float, final: float) -> Factor:
    """Linear rise over the first `warmup` share of steps, then half a cosine to `final` (Loshchilov & Hutter 2017)."""
    n_warmup = _n_warmup(total_steps, warmup, final)

    def factor(step: int) -> float:
        return _rise(step, n_warmup) or final + (1 - final) * 0.5 * (1 + math.cos(math.pi * _done(step)))

    def _done(step: int) -> float:
        return min(1.0, (step - n_warmup) / max(1, total_steps - n_warmup))

    return factor


def warmup_linear(total_steps: int, warmup: float, final: float) -> Factor:
    """Linear rise over the first `warmup` share of steps, then a line to `final`."""
    n_warmup = _n_warmup(total_steps, warmup, final)

    def factor(step: int) -> float:
        done = min(1.0, (step - n_warmup) / max(1, total_steps - n_warmup))
        return _rise(step, n_warmup) or 1 - (1 - final) * done

    return factor


def noam(total_steps: int, warmup: float) -> Factor:
    """Linear rise, then the inverse square root of the step (Vaswani et al. 2017, equation 3), 1 where both meet."""
    n_warmup = _n_warmup(total_steps, warmup)

    def factor(step: int) -> float:
        return _rise(step, n_warmup) or math.sqrt(n_warmup / (step + 1))

    return factor


def one_cycle(total_steps: int, warmup: float, initial: float, final: float) -> Factor:
    """Half a cosine from `initial` up to 1 and another down to `final` (Smith & Topin 2017), as torch's OneCycleLR."""
    n_warmup = _n_warmup(total_steps, warmup, final)
    if not 0 <= initial <= 1:
        raise ValueError(f"schedule.initial is between 0 and 1, {initial} came")

    def factor(step: int) -> float:
        if step < n_warmup:
            return 1 + (initial - 1) * 0.5 * (1 + math.cos(math.pi * step / n_warmup))
        done = min(1.0, (step - n_warmup) / max(1, total_steps - 1 - n_warmup))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

    return factor


def wsd(total_steps: int, warmup: float, decay: float, final: float) -> Factor:
    """Warm-up, stable, decay (Hu et al. 2024): a rise, a long plateau, and a line to `final` over the last `decay`
    share of steps."""
    n_warmup = _n_warmup(total_steps, warmup, final)
    if not 0 < decay <= 1 - warmup:
        raise ValueError(f"schedule.decay is above 0 and at most 1 - schedule.warmup, {decay} came")
    n_decay = max(1, round(decay * total_steps))

    def factor(step: int) -> float:
        done = min(1.0, max(0.0, (step + n_decay - total_steps) / n_decay))
        return _rise(step, n_warmup) or 1 - (1 - final) * done

    return factor


def eden(total_steps: int, steps_per_epoch: int, warmup_steps: int, half_steps: int, half_epochs: float) -> Factor:
    """Falls with steps and with epochs: ((t^2 + T^2) / T^2)^-1/4 ((e^2 + E^2) / E^2)^-1/4, times a rise from 1/2 to 1
    over `warmup_steps` (Povey, icefall's Eden). T = `half_steps`, E = `half_epochs`; e counts parts of an epoch."""
    if warmup_steps < 0 or half_steps < 1 or not half_epochs > 0:
        raise ValueError(
            "schedule: warmup_steps is not negative, half_steps and half_epochs are positive; "
            f"{warmup_steps}, {half_steps} and {half_epochs} came"
        )

    def factor(step: int) -> float:
        rise = 1.0 if step >= warmup_steps else 0.5 + 0.5 * step / warmup_steps
        epoch = step / steps_per_epoch
        return rise * ((step / half_steps) ** 2 + 1) ** -0.25 * ((epoch / half_epochs) ** 2 + 1) ** -0.25

    return factor


def exponential(total_steps: int, steps_per_epoch: int, gamma: float, every: str) -> Factor:
    """`gamma` to the power of the steps, or of the whole epochs, that are over."""
    if not 0 < gamma <= 1:
        raise ValueError(f"schedule.gamma is above 0 and at most 1, {gamma} came")
    if every not in ("step", "epoch"):
        raise ValueError(f"schedule.every={every}; choose from: step, epoch")
    return lambda step: gamma ** (step if every == "step" else step // steps_per_epoch)


def _n_warmup(total_steps: int, warmup: float, final: float = 0.0) -> int:
    if not 0 <= warmup < 1 or not 0 <= final <= 1:
        raise ValueError(f"schedule: warmup is in [0, 1) and final in [0, 1], {warmup} and {final} came")
    return max(1, round(warmup * total_steps))


def _rise(step: int, n_warmup: int) -> float:
    """The line up to 1 during the warm-up, 0 after it"""
    return (step + 1) / n_warmup if step < n_warmup else 0.0
