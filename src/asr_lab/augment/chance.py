"""Augmentations that happen to some utterances only."""

import math
from itertools import accumulate

from torch import Generator, Tensor

from asr_lab.augment import Augment
from asr_lab.augment.chain import check_built
from asr_lab.augment.draws import uniform
from asr_lab.augment.none import NoAugment


class OneOf:
    """One of the named augmentations for each utterance, with chances in proportion to `weights`.

    They all work on audio, or all on features: the two are drawn for apart, and one draw can not decide for both.
    """

    speeds = (1.0,)

    def __init__(self, weights: dict[str, float], **named: Augment):
        check_built(named)
        if not isinstance(weights, dict) or set(weights) != set(named) or not named:
            raise ValueError(f"weights has a number for each of {sorted(named)}, {weights!r} came")
        if not all(math.isfinite(w) and w >= 0 for w in weights.values()) or not sum(weights.values()) > 0:
            raise ValueError(f"weights are numbers from 0 on and not all 0, {weights} came")
        # By name: a run is recognised by its values, and not by the order of keys in a YAML.
        names = sorted(named)
        self.augments = [named[name] for name in names]
        self.bounds = list(accumulate(weights[name] for name in names))
        if any(a.speeds != (1.0,) for a in self.augments):
            raise ValueError(
                "speed cannot be left to a further chance, it is drawn before everything else; make it a step of the "
                "chain itself, with 1.0 among its factors"
            )
        self.on_audio = any(a.on_audio for a in self.augments)
        self.on_features = any(a.on_features for a in self.augments)
        self.masks_bands = any(a.masks_bands for a in self.augments)
        if self.on_audio and self.on_features:
            raise ValueError("steps on audio and steps on features are drawn for apart; give each a wrapper of its own")

    def audio(self, audio: Tensor, generator: Generator) -> Tensor:
        return self._drawn(generator).audio(audio, generator) if self.on_audio else audio

    def features(self, feats: Tensor, generator: Generator) -> Tensor:
        return self._drawn(generator).features(feats, generator) if self.on_features else feats

    def _drawn(self, generator: Generator) -> Augment:
        point = uniform(0, self.bounds[-1], generator)
        return next(a for a, bound in zip(self.augments, self.bounds, strict=True) if point < bound)


class Sometimes(OneOf):
    """`step` with a probability, otherwise nothing."""

    def __init__(self, probability: float, step: Augment):
        if not 0 <= probability <= 1:
            raise ValueError(f"probability is a number in [0, 1], {probability} came")
        super().__init__({"step": probability, "nothing": 1 - probability}, step=step, nothing=NoAugment())
