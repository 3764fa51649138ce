"""Encoders: `(feats (B,T,F), lens (B,)) -> (hidden (B,U,D), out_lens (B,))`, one file a family.

Padding never changes a valid output, and what comes out for padding is zero. `forward` reads no value of a tensor on
the host (no `.item()`, no `if lens.max()`): it never waits for a GPU, can be exported, and runs on the meta device,
where its arithmetic and memory are counted. The width of a family is its key `d_model` (recurrent: `d_hidden`), its
depth `n_layers`: matching turns these (see match.py).
"""

from typing import Any, Literal, Protocol

from torch import Tensor

from asr_lab.layers.receptive_field import ReceptiveField


class Encoder(Protocol):
    """A `nn.Module`, built with `in_dim` (feature width) and the plain values of its YAML."""

    out_dim: int
    memory_growth: Literal["linear", "quadratic"]  # of a training step, with the length of an utterance
    exports: bool  # torch.export gives the same numbers at other lengths
    stream_frames: int | None  # feature frames in one step of `stream`; None: this configuration cannot stream

    @property
    def receptive_field(self) -> ReceptiveField:
        """In feature frames."""
        ...

    def output_lengths(self, lens: Tensor) -> Tensor:
        """Feature frames (B,) -> encoder frames (B,), at least 1 for 1."""
        ...

    def __call__(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]: ...


class StreamingEncoder(Encoder, Protocol):
    """What comes out piece by piece is what `forward` gives for the whole (in evaluation)."""

    stream_frames: int

    def stream(self, feats: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B, stream_frames, F) (the last piece may be shorter), state (None: the beginning) -> (B,U,D), state"""
        ...


__all__ = ["Encoder", "StreamingEncoder"]
