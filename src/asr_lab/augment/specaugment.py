"""SpecAugment: masks over bands and stretches of the features."""

from torch import Generator, Tensor, rand

from asr_lab.augment.none import NoAugment


class _Masks(NoAugment):
    """Masked cells are set to the utterance's mean, which is 0 after normalisation.

    Of n masks in one direction none is wider than (length - 1) // n: a band and a frame always stay as they were.
    """

    on_features = True

    def __init__(self, n_freq_masks: int, max_freq: int):
        if min(n_freq_masks, max_freq) < 0:
            raise ValueError("n_freq_masks and max_freq must not be negative")
        self.n_freq_masks, self.max_freq = n_freq_masks, max_freq
        self.masks_bands = n_freq_masks > 0 and max_freq > 0

    def time_masks(self, n_frames: int) -> tuple[int, int]:
        """How many, and of how many frames at most."""
        raise NotImplementedError

    def features(self, feats: Tensor, generator: Generator) -> Tensor:
        """(T, F) -> (T, F)"""
        n_frames, n_features = feats.shape
        bands = _spans(n_features, self.n_freq_masks, self.max_freq, generator)
        stretches = _spans(n_frames, *self.time_masks(n_frames), generator)
        if n_frames == 0 or not (bands or stretches):
            return feats
        feats = feats.clone()
        cells = feats.numpy()  # the same memory; faster to write to, and a mean that is the same with any threads
        fill = cells.mean()
        for start, width in bands:
            cells[:, start : start + width] = fill
        for start, width in stretches:
            cells[start : start + width] = fill
        return feats


class SpecAugment(_Masks):
    """Masks `n_freq_masks` bands of up to `max_freq` features and `n_time_masks` stretches of up to `max_time` frames.

    A time mask is never wider than `max_time_share` of the utterance (Park et al. 2019, the bound p).
    """

    def __init__(
        self,
        n_freq_masks: int,
        max_freq: int,
        n_time_masks: int,
        max_time: int,
        max_time_share: float,
    ):
        super().__init__(n_freq_masks, max_freq)
        if min(n_time_masks, max_time) < 0 or not 0 <= max_time_share <= 1:
            raise ValueError("n_time_masks and max_time must not be negative, max_time_share is in [0, 1]")
        self.n_time_masks, self.max_time, self.max_time_share = n_time_masks, max_time, max_time_share

    def time_masks(self, n_frames: int) -> tuple[int, int]:
        return self.n_time_masks, min(self.max_time, int(self.max_time_share * n_frames))


class AdaptiveSpecAugment(_Masks):
    """Time masks that follow the length (Park et al. 2020, section 2.1): of T frames, floor(p_M T) masks, at most
    `max_n_time_masks`, each of up to floor(p_S T) frames; p_M is `time_masks_per_frame`, p_S is `max_time_share`.
    """

    def __init__(
        self,
        n_freq_masks: int,
        max_freq: int,
        time_masks_per_frame: float,
        max_n_time_masks: int,
        max_time_share: float,
    ):
        super().__init__(n_freq_masks, max_freq)
        if max_n_time_masks < 0 or not 0 <= time_masks_per_frame <= 1 or not 0 <= max_time_share <= 1:
            raise ValueError(
                "max_n_time_masks must not be negative, time_masks_per_frame and max_time_share are in [0, 1]"
            )
        self.time_masks_per_frame, self.max_n_time_masks = time_masks_per_frame, max_n_time_masks
        self.max_time_share = max_time_share

    def time_masks(self, n_frames: int) -> tuple[int, int]:
        n = min(self.max_n_time_masks, int(self.time_masks_per_frame * n_frames))
        return n, int(self.max_time_share * n_frames)


def _spans(length: int, n: int, widest: int, generator: Generator) -> list[tuple[int, int]]:
    """(start, width) of up to n masks: widths uniform in 0..widest, then starts uniform where they fit."""
    widest = min(widest, (length - 1) // n) if n else 0
    if widest < 1:
        return []
    draws = rand(2 * n, generator=generator).tolist()
    widths = [int(u * (widest + 1)) for u in draws[:n]]
    return [(int(u * (length - w + 1)), w) for u, w in zip(draws[n:], widths, strict=True) if w]
