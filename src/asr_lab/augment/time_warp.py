"""Time warping of features (Park et al. 2019, section 2)."""

import torch
from torch import Generator, Tensor

from asr_lab.augment.draws import below
from asr_lab.augment.none import NoAugment


class TimeWarp(NoAugment):
    """Moves one frame, drawn at random, by up to `max_shift` frames; what is before and behind it is stretched.

    The first and the last frame stay where they are. The shift is at most `max_share` of the utterance. Between frames
    features are interpolated linearly.
    """

    on_features = True

    def __init__(self, max_shift: int, max_share: float):
        if max_shift < 0 or not 0 <= max_share <= 1:
            raise ValueError("max_shift must not be negative, max_share is in [0, 1]")
        self.max_shift, self.max_share = max_shift, max_share

    def features(self, feats: Tensor, generator: Generator) -> Tensor:
        """(T, F) -> (T, F)"""
        last = len(feats) - 1
        # Two frames less than half: the moved frame stays within the ones that do not move.
        widest = min(self.max_shift, int(self.max_share * len(feats)), (last - 2) // 2)
        if widest < 1:
            return feats
        source = widest + 1 + below(last - 1 - 2 * widest, generator)
        goal = source - widest + below(2 * widest + 1, generator)
        return warped(feats, source, goal)


def warped(feats: Tensor, source: int, goal: int) -> Tensor:
    """(T, F) -> (T, F), frame `source` at `goal`, both in 1..T-2."""
    last = len(feats) - 1
    t = torch.arange(last + 1, dtype=torch.float64)
    behind = source + (t - goal) * ((last - source) / (last - goal))
    place = torch.where(t < goal, t * (source / goal), behind).clamp_(max=last)
    left = place.long().clamp_(max=last - 1)
    return torch.lerp(feats[left], feats[left + 1], (place - left).to(feats.dtype)[:, None])
