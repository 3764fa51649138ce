"""What crosses a border between parts, and the one legend of shapes.

B batch, S audio samples, T feature frames, U encoder frames, F features, D width, H heads, L labels, V vocabulary.
Counts are `n_*`, widths `d_*`, times `*_ms` or `*_s`. Lengths are always honoured: what stands in the padding never
changes an output.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One padded batch of utterances."""

    feats: Tensor  # (B, T, F) float32, zero-padded
    feat_lens: Tensor  # (B,) int64, valid frames
    labels: Tensor  # (B, L) int64, padded with 0
    label_lens: Tensor  # (B,) int64
    ids: tuple[str, ...]  # utterance ids, for error messages and hypotheses
    texts: tuple[str, ...]  # normalised reference texts
    seconds: float  # audio seconds in the batch, without padding

    def to(self, device, non_blocking: bool = False) -> "Batch":
        """The same batch on `device`; Lightning calls this."""
        return self._each(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return self._replace(
            feats=change(self.feats),
            feat_lens=change(self.feat_lens),
            labels=change(self.labels),
            label_lens=change(self.label_lens),
        )


class TextBatch(NamedTuple):
    """One padded batch of sentences."""

    labels: Tensor  # (B, L) int64, padded with 0
    label_lens: Tensor  # (B,) int64
    n_labels: int  # of the batch, without padding and with the end of each sentence
    ids: tuple[str, ...]  # empty in training, as the texts
    texts: tuple[str, ...]

    def to(self, device, non_blocking: bool = False) -> "TextBatch":
        """The same batch on `device`; Lightning calls this."""
        return self._each(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "TextBatch":
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "TextBatch":
        return self._replace(labels=change(self.labels), label_lens=change(self.label_lens))


class ToyBatch(NamedTuple):
    """What is random in one step of a toy landscape; nothing where nothing is."""

    drawn: tuple[Tensor, ...]

    def to(self, device, non_blocking: bool = False) -> "ToyBatch":
        """The same batch on `device`; Lightning calls this."""
        return ToyBatch(tuple(t.to(device, non_blocking=non_blocking) for t in self.drawn))

    def pin_memory(self) -> "ToyBatch":
        return ToyBatch(tuple(t.pin_memory() for t in self.drawn))


class ClipReport(NamedTuple):
    """What a clipping choice did to one step's gradients; every choice reports it, `none` too."""

    norm_before: Tensor  # () global 2-norm of all gradients
    norm_after: Tensor  # () the same after clipping; equal to norm_before when nothing was done
    clipped: Tensor  # () bool: some gradient is not what it was
    skip: Tensor | None = None  # () bool: weights shall not move in this step


class Hypothesis(NamedTuple):
    """One decoded utterance."""

    labels: list[int]
    score: float  # log-probability under the search's own score, a language model's share included
    frames: list[int] | None = None  # encoder frame at which each label was said, where the search knows
