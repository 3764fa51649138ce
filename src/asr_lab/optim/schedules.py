"""Learning-rate schedules: step -> factor on the optimizer's lr, from 0.

The training task says how long the training will be (`begin`) and then asks for the factor of every step. With `every:
epoch` the formulas count whole epochs, so the factor stands still within one. Those that listen to the training are in
`told.py`.
"""

import math


class Schedule:
    """What all share: the length of the training, in steps or in epochs."""

    def __init__(self, every: str):
        if every not in ("step", "epoch"):
            raise ValueError(f"schedule.every={every}; choose from: step, epoch")
        self.every = every
        self.unit = self.total = 1

    def begin(self, n_steps: int, steps_per_epoch: int) -> None:
        """The training takes `n_steps` optimizer steps; the last epoch may be cut short."""
        self.unit = steps_per_epoch if self.every == "epoch" else 1
        self.total = math.ceil(n_steps / self.unit)

    def __call__(self, step: int) -> float:
        """Factor of the step, from 0; one after the last is asked for, too."""
        return self.factor(step // self.unit)

    def factor(self, t: int) -> float:
        """Of the t-th step or epoch, from 0"""
        raise NotImplementedError


class Constant(Schedule):
    """Factor 1 throughout."""

    def __init__(self) -> None:
        super().__init__("step")

    def factor(self, t: int) -> float:
        return 1.0


class Warmup(Schedule):
    """A line up to 1 over the first `warmup` share: (t + 1) / n for t < n."""

    def __init__(self, warmup: float, every: str):
        super().__init__(every)
        if not 0 <= warmup < 1:
            raise ValueError(f"schedule.warmup is a share, at least 0 and below 1, {warmup} came")
        self.warmup = warmup

    @property
    def n_warmup(self) -> int:
        return max(1, round(self.warmup * self.total)) if self.warmup else 0

    def factor(self, t: int) -> float:
        n = self.n_warmup
        return (t + 1) / n if t < n else self.after(t - n, max(1, self.total - n))

    def after(self, t: int, n: int) -> float:
        """Factor of the t-th step or epoch, from 0, of the `n` after the warm-up"""
        raise NotImplementedError


class WarmupCosine(Warmup):
    """A rise, then half a cosine to `final` (Loshchilov & Hutter 2017, equation 5, without restarts)."""

    def __init__(self, warmup: float, final: float, every: str):
        super().__init__(warmup, every)
        self.final = _share("final", final)

    def after(self, t: int, n: int) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, t / n)))


class WarmupLinear(Warmup):
    """A rise, then a line to `final`."""

    def __init__(self, warmup: float, final: float, every: str):
        super().__init__(warmup, every)
        self.final = _share("final", final)

    def after(self, t: int, n: int) -> float:
        return 1 - (1 - self.final) * min(1.0, t / n)


class Noam(Warmup):
    """A rise, then the inverse square root (Vaswani et al. 2017, equation 3), scaled to 1 where both meet."""

    @property
    def n_warmup(self) -> int:
        return max(1, round(self.warmup * self.total))

    def after(self, t: int, n: int) -> float:
        return math.sqrt(self.n_warmup / (t + 1 + self.n_warmup))


class OneCycle(Schedule):
    """Half a cosine from `initial` up to 1 and another down to `final` (Smith & Topin 2017); the steps are those of
    torch's OneCycleLR with two phases, in which the momentum stays as it is."""

    def __init__(self, warmup: float, initial: float, final: float, every: str):
        super().__init__(every)
        if not 0 <= warmup < 1:
            raise ValueError(f"schedule.warmup is a share, at least 0 and below 1, {warmup} came")
        self.warmup, self.initial, self.final = warmup, _share("initial", initial), _share("final", final)

    def factor(self, t: int) -> float:
        peak, last = self.warmup * self.total - 1, self.total - 1
        if t < peak:
            return _half_cosine(self.initial, 1.0, t / peak)
        peak = max(0.0, peak)
        return _half_cosine(1.0, self.final, min(1.0, (t - peak) / (last - peak)) if last > peak else 1.0)


class Wsd(Warmup):
    """Warm-up, stable, decay (Hu et al. 2024): a rise, a long plateau, and a line to `final` over the last `decay`
    share."""

    def __init__(self, warmup: float, decay: float, final: float, every: str):
        super().__init__(warmup, every)
        if not 0 < decay <= 1 - warmup:
            raise ValueError(f"schedule.decay is above 0 and at most 1 - schedule.warmup, {decay} came")
        self.decay, self.final = decay, _share("final", final)

    def after(self, t: int, n: int) -> float:
        n_decay = min(n, max(1, round(self.decay * self.total)))
        return 1 - (1 - self.final) * min(1.0, max(0.0, (t + n_decay - n) / n_decay))


class Eden(Schedule):
    """Falls with steps and with epochs (icefall's Eden, Povey; Yao et al. 2024):
    ((t^2 + T^2) / T^2)^-1/4 ((e^2 + E^2) / E^2)^-1/4, times a line from `warmup_start` to 1 over `warmup_steps`.

    t counts steps, e whole epochs; T = `half_steps`, E = `half_epochs`.
    """

    def __init__(self, warmup_start: float, warmup_steps: int, half_steps: int, half_epochs: float):
        super().__init__("step")
        self.warmup_start = _share("warmup_start", warmup_start)
        if warmup_steps < 0 or half_steps < 1 or not half_epochs > 0:
            raise ValueError(
                "schedule: warmup_steps is not negative, half_steps and half_epochs are positive; "
                f"{warmup_steps}, {half_steps} and {half_epochs} came"
            )
        self.warmup_steps, self.half_steps, self.half_epochs = warmup_steps, half_steps, half_epochs
        self.steps_per_epoch = 1

    def begin(self, n_steps: int, steps_per_epoch: int) -> None:
        super().begin(n_steps, steps_per_epoch)
        self.steps_per_epoch = steps_per_epoch

    def factor(self, t: int) -> float:
        rise = 1.0
        if t < self.warmup_steps:
            rise = self.warmup_start + (1 - self.warmup_start) * t / self.warmup_steps
        epoch = t // self.steps_per_epoch
        return rise * ((t / self.half_steps) ** 2 + 1) ** -0.25 * ((epoch / self.half_epochs) ** 2 + 1) ** -0.25


class Exponential(Schedule):
    """`gamma` to the power of the steps, or of the whole epochs, that are over."""

    def __init__(self, gamma: float, every: str):
        super().__init__(every)
        if not 0 < gamma <= 1:
            raise ValueError(f"schedule.gamma is above 0 and at most 1, {gamma} came")
        self.gamma = gamma

    def factor(self, t: int) -> float:
        return self.gamma**t


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"schedule.{name} is a share of the peak learning rate, between 0 and 1, {value} came")
    return value


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))
