"""No augmentation."""

from torch import Generator, Tensor


class NoAugment:
    max_speed = 1.0

    def audio(self, audio: Tensor, generator: Generator) -> Tensor:
        return audio

    def features(self, feats: Tensor, generator: Generator) -> Tensor:
        return feats
