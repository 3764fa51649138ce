"""Which frames an attention layer may look at: all, the past, or chunks (Zhang et al. 2020, "Unified streaming...")."""

from typing import Protocol

import torch
from torch import Tensor


class Context(Protocol):
    """Which encoder frames see which."""

    chunk_size: int | None  # encoder frames that are computed together when streaming; None: the whole utterance

    def mask(self, n_frames: int, device: torch.device) -> Tensor | None:
        """(U, U) bool, True where the row's frame may look at the column's; None: everywhere."""
        ...

    def reach(self, n_layers: int) -> tuple[float, float]:
        """Most frames before and after a frame that `n_layers` such layers on top of each other depend on."""
        ...


class FullContext:
    """Every frame sees the whole utterance."""

    chunk_size = None

    def mask(self, n_frames: int, device: torch.device) -> Tensor | None:
        return None

    def reach(self, n_layers: int) -> tuple[float, float]:
        return float("inf"), float("inf")


class ChunkContext:
    """A frame sees its own chunk of `chunk_size` frames and `n_left_chunks` before it; chunks of 1 are causal.

    Figure 2 of Zhang et al. 2020, "Unified streaming and non-streaming two-pass end-to-end model" (U2).
    """

    def __init__(self, chunk_size: int, n_left_chunks: int):
        if chunk_size < 1 or n_left_chunks < 0:
            raise ValueError(
                f"context wants at least 1 frame in a chunk and no negative number of chunks before it, "
                f"chunk_size={chunk_size} and n_left_chunks={n_left_chunks} came"
            )
        self.chunk_size, self.n_left_chunks = chunk_size, n_left_chunks

    def mask(self, n_frames: int, device: torch.device) -> Tensor | None:
        chunk = torch.arange(n_frames, device=device) // self.chunk_size
        behind = chunk[:, None] - chunk  # (U, U) chunks that the key lies before the query
        return (behind >= 0) & (behind <= self.n_left_chunks)

    def reach(self, n_layers: int) -> tuple[float, float]:
        return n_layers * self.n_left_chunks * self.chunk_size + self.chunk_size - 1, self.chunk_size - 1
