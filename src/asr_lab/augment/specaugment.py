"""SpecAugment (Park et al. 2019)."""

import torch
from torch import Generator, Tensor

from asr_lab.augment.none import NoAugment


class SpecAugment(NoAugment):
    """Masks `n_freq_masks` bands of up to `max_freq` features and `n_time_masks` stretches of up to `max_time` frames.

    A time mask is never wider than `max_time_share` of the utterance (Park et al. 2019, the bound p). Masked cells are
    set to the utterance's mean, which is 0 after per-utterance normalisation.
    """

    def __init__(
        self,
        n_freq_masks: int,
        max_freq: int,
        n_time_masks: int,
        max_time: int,
        max_time_share: float,
    ):
        if min(n_freq_masks, n_time_masks, max_freq, max_time) < 0 or not 0 <= max_time_share <= 1:
            raise ValueError("augment: mask counts and widths must not be negative, max_time_share is in [0, 1]")
        self.n_freq_masks, self.max_freq = n_freq_masks, max_freq
        self.n_time_masks, self.max_time, self.max_time_share = n_time_masks, max_time, max_time_share
        self.masks_bands = n_freq_masks > 0 and max_freq > 0

    def features(self, feats: Tensor, generator: Generator) -> Tensor:
        """(T, F) -> (T, F)"""
        n_frames, width = feats.shape
        feats, fill = feats.clone(), feats.mean()
        for _ in range(self.n_freq_masks):
            start, stop = _span(width, self.max_freq, generator)
            feats[:, start:stop] = fill
        for _ in range(self.n_time_masks):
            start, stop = _span(n_frames, min(self.max_time, int(self.max_time_share * n_frames)), generator)
            feats[start:stop] = fill
        return feats


def _span(length: int, widest: int, generator: Generator) -> tuple[int, int]:
    width = _below(min(widest, length) + 1, generator)
    start = _below(length - width + 1, generator)
    return start, start + width


def _below(n: int, generator: Generator) -> int:
    return int(torch.randint(n, (), generator=generator))
