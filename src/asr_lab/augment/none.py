"""No augmentation, and the steps that an augmentation does not take."""

from torch import Generator, Tensor


class NoAugment:
    speeds: tuple[float, ...] = (1.0,)
    on_audio = False
    on_features = False
    masks_bands = False

    def audio(self, audio: Tensor, generator: Generator) -> Tensor:
        return audio

    def features(self, feats: Tensor, generator: Generator) -> Tensor:
        return feats
