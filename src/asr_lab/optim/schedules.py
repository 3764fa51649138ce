"""Learning-rate schedules: step -> factor on the optimizer's lr. Each YAML is a partial that gets `total_steps`."""

import math
from collections.abc import Callable


def constant(total_steps: int) -> Callable[[int], float]:
    """Factor 1 throughout."""
    return lambda step: 1.0


def warmup_cosine(total_steps: int, warmup: float, final: float) -> Callable[[int], float]:
    """Linear rise over the first `warmup` share of steps, then half a cosine to `final` (Loshchilov & Hutter 2017)."""
    if not 0 <= warmup < 1 or not 0 <= final <= 1:
        raise ValueError(f"schedule: warmup is in [0, 1) and final in [0, 1], {warmup} and {final} came")
    n_warmup = max(1, round(warmup * total_steps))

    def factor(step: int) -> float:
        if step < n_warmup:
            return (step + 1) / n_warmup
        done = min(1.0, (step - n_warmup) / max(1, total_steps - n_warmup))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

    return factor
