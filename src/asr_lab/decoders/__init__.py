"""Decoders: each owns its special ids and its loss, and works with every encoder. Searches are in asr_lab.decoding.

A decoder may also have, where its model allows:
- `attach(encoder)`: called once by build.py, before training (to listen at layers inside the encoder).
- `terms`: {name: (B,) nats} of the last `loss`, detached, where a loss is a sum of several; logged as `loss_<name>`.
- `align(hidden, lens, labels, label_lens) -> list[list[Span]]`: where each given label lies (forced alignment).
- `posteriors(hidden, lens, labels, label_lens) -> (log-probabilities (B,N,K), valid (B,N))`: what distillation
  compares.
- `begin(hidden, lens)`, `scores`, `advance`, `select`: the contract `Scorer` of asr_lab.decoding, for a decoder that
  predicts label after label.
- `log_probs(hidden) -> (B,U,K)`: one distribution a frame, for a frame-wise decoder.
"""

from typing import NamedTuple, Protocol

from torch import Tensor


class Decoder(Protocol):
    """A `nn.Module`, built with `in_dim` (encoder width), `n_labels` (V) and the plain values of its YAML."""

    def loss(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        """Per-utterance negative log-likelihood (B,) in nats of hidden (B,U,D) for labels (B,L)."""
        ...

    def min_frames(self, labels: Tensor, label_lens: Tensor) -> Tensor:
        """Encoder frames (B,) that each label sequence needs at the least."""
        ...


class Span(NamedTuple):
    """Where a label lies."""

    label: int
    start: int  # encoder frame
    end: int  # encoder frame, not included
    score: float  # mean log-probability of the label over its frames


__all__ = ["Decoder", "Span"]
