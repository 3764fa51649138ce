"""Several augmentations, one after the other."""

from torch import Generator, Tensor

from asr_lab.augment import Augment


class Chain:
    """The named steps in their order; the names are for overrides (`augment.specaugment.max_time=20`)."""

    def __init__(self, **steps: Augment):
        if not steps:
            raise ValueError("augment: a chain has at least one step; augment=none is no augmentation")
        speeds = [s.speeds for s in steps.values() if s.speeds != (1.0,)]
        if len(speeds) > 1:
            raise ValueError("augment: only one step of a chain may change the speed")
        self.steps = list(steps.values())
        self.speeds = speeds[0] if speeds else (1.0,)
        self.on_audio = any(s.on_audio for s in self.steps)
        self.masks_bands = any(s.masks_bands for s in self.steps)

    def audio(self, audio: Tensor, generator: Generator) -> Tensor:
        for step in self.steps:
            audio = step.audio(audio, generator)
        return audio

    def features(self, feats: Tensor, generator: Generator) -> Tensor:
        for step in self.steps:
            feats = step.features(feats, generator)
        return feats
