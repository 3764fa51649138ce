"""Augmentation of training utterances, seeded by (run seed, epoch, utterance): the same whatever the workers."""

from typing import Protocol

from torch import Generator, Tensor


class Augment(Protocol):
    """Two random steps, on audio and on features; before them the speed, which is drawn apart because it is cached.

    All draws come from the given generator. Neither step changes what it is given.
    """

    speeds: tuple[float, ...]  # equally likely factors by which an utterance is played faster; (1.0,) for none
    on_audio: bool  # `audio` changes something: features are then computed anew in every epoch
    on_features: bool  # `features` changes something
    masks_bands: bool  # `features` masks neighbouring features: these must be frequencies

    def audio(self, audio: Tensor, generator: Generator) -> Tensor:
        """(S,) -> (S,); empty and silent audio come back as they are"""
        ...

    def features(self, feats: Tensor, generator: Generator) -> Tensor:
        """(T, F) normalised features -> (T, F), a new tensor or the given one untouched"""
        ...


__all__ = ["Augment"]
