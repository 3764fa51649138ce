"""Augmentation of training utterances, seeded by (run seed, epoch, utterance): the same whatever the workers."""

from typing import Protocol

from torch import Generator, Tensor


class Augment(Protocol):
    max_speed: float  # the largest factor by which an utterance can get shorter; 1.0 when it keeps its length

    def audio(self, audio: Tensor, generator: Generator) -> Tensor:
        """(S,) -> (S',)"""
        ...

    def features(self, feats: Tensor, generator: Generator) -> Tensor:
        """(T, F) -> (T, F)"""
        ...


__all__ = ["Augment"]
