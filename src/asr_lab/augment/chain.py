"""Several augmentations, one after the other."""

from torch import Generator, Tensor

from asr_lab.augment import Augment
from asr_lab.errors import nearest


class Chain:
    """The named augmentations that `steps` lists, in its order; one that it does not list does not happen.

    The names are for overrides (`augment.specaugment.max_time=20`). The order is a list of its own, and not that of the
    YAML's keys, because a run is recognised by its values: two orders are two runs.
    """

    def __init__(self, steps: list[str], **named: Augment):
        if not isinstance(steps, list) or not steps:
            raise ValueError(f"steps is a list of one or more of {sorted(named)}, {steps!r} came; augment=none is none")
        check_built(named)
        for name in steps:
            if name not in named:
                raise ValueError(f"steps: {name!r} is not defined{nearest(str(name), named)}")
        self.steps = [named[name] for name in steps]
        speeds = [s.speeds for s in self.steps if s.speeds != (1.0,)]
        if len(speeds) > 1:
            raise ValueError("steps: only one step of a chain may change the speed")
        self.speeds = speeds[0] if speeds else (1.0,)
        self.on_audio = any(s.on_audio for s in self.steps)
        self.on_features = any(s.on_features for s in self.steps)
        self.masks_bands = any(s.masks_bands for s in self.steps)

    def audio(self, audio: Tensor, generator: Generator) -> Tensor:
        for step in self.steps:
            audio = step.audio(audio, generator)
        return audio

    def features(self, feats: Tensor, generator: Generator) -> Tensor:
        for step in self.steps:
            feats = step.features(feats, generator)
        return feats


def check_built(named: dict[str, Augment]) -> None:
    """
    Raises:
        ValueError: what stands under a name in the YAML built no augmentation.
    """
    for name, part in named.items():
        if not hasattr(part, "speeds"):
            raise ValueError(f"{name}: {part!r} is no augmentation; its _target_ is missing or names something else")
