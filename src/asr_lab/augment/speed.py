"""Speed perturbation (Ko et al. 2015)."""

from asr_lab.augment.none import NoAugment


class SpeedPerturbation(NoAugment):
    """Plays an utterance at one of `factors`, drawn with equal chance: pitch and tempo change together."""

    def __init__(self, factors: list[float]):
        if (
            not isinstance(factors, list)
            or not factors
            or not all(0.1 <= f <= 10 for f in factors)
            or len(set(factors)) < len(factors)
        ):
            raise ValueError(f"factors are different numbers such as [0.9, 1.0, 1.1], {factors} came")
        self.speeds = tuple(factors)
