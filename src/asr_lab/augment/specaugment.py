"""SpecAugment (Park et al. 2019) and speed perturbation (Ko et al. 2015)."""

import torch
import torchaudio
from torch import Generator, Tensor


class SpecAugment:
    """Masks `n_freq_masks` bands of up to `max_freq` features and `n_time_masks` stretches of up to `max_time` frames.

    A time mask is never wider than `max_time_share` of the utterance (Park et al. 2019, the bound p). Masked cells are
    set to the utterance's mean, which is 0 after per-utterance normalisation. Speeds other than 1.0 in `speeds` are
    drawn with equal chance and resample the audio: pitch and tempo change together.
    """

    def __init__(
        self,
        n_freq_masks: int,
        max_freq: int,
        n_time_masks: int,
        max_time: int,
        max_time_share: float,
        speeds: list[float],
    ):
        if min(n_freq_masks, n_time_masks, max_freq, max_time) < 0 or not 0 <= max_time_share <= 1:
            raise ValueError("augment: mask counts and widths must not be negative, max_time_share is in [0, 1]")
        if not speeds or min(speeds) <= 0:
            raise ValueError(f"augment.speeds must be positive factors such as [0.9, 1.0, 1.1], {speeds} came")
        self.n_freq_masks, self.max_freq = n_freq_masks, max_freq
        self.n_time_masks, self.max_time, self.max_time_share = n_time_masks, max_time, max_time_share
        self.speeds = speeds
        self.max_speed = max(1.0, *speeds)

    def audio(self, audio: Tensor, generator: Generator) -> Tensor:
        """(S,) -> (S / speed,)"""
        speed = self.speeds[_below(len(self.speeds), generator)]
        if speed == 1.0:
            return audio
        return torchaudio.functional.resample(audio, round(speed * 100), 100)

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
