"""Which frames an attention layer may look at: all, the past, or chunks (Zhang et al. 2020, "Unified streaming...")."""

from typing import Protocol

import torch
from torch import Tensor, nn


class Context(Protocol):
    """Which encoder frames see which. A choice that draws in training is a `nn.Module`: encoders keep it as a field."""

    chunk_size: int | None  # encoder frames that are computed together when streaming; None: the whole utterance
    n_left_chunks: int  # chunks before its own that a frame sees

    def mask(self, n_frames: int, device: torch.device) -> Tensor | None:
        """(U, U) bool, True where the row's frame may look at the column's; None: everywhere."""
        ...

    def reach(self, n_layers: int, left: int = 0, right: int = 0) -> tuple[float, float]:
        """Most frames before and after a frame that `n_layers` such layers on top of each other depend on.

        Each may have a convolution on top, which sees `left` frames before and `right` after its own.
        """
        ...


class FullContext:
    """Every frame sees the whole utterance."""

    chunk_size = None
    n_left_chunks = 0

    def mask(self, n_frames: int, device: torch.device) -> Tensor | None:
        return None

    def reach(self, n_layers: int, left: int = 0, right: int = 0) -> tuple[float, float]:
        return float("inf"), float("inf")


class ChunkContext(nn.Module):
    """A frame sees its own chunk of `chunk_size` frames and `n_left_chunks` before it; chunks of 1 are causal.

    Figure 2 of Zhang et al. 2020, "Unified streaming and non-streaming two-pass end-to-end model" (U2).
    """

    def __init__(self, chunk_size: int, n_left_chunks: int):
        super().__init__()
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

    def reach(self, n_layers: int, left: int = 0, right: int = 0) -> tuple[float, float]:
        """Followed down the layers from each place that a frame may have in its chunk."""
        size, most = self.chunk_size, [0, 0]
        for place in range(size):
            first = last = place
            for _ in range(n_layers):
                first = ((first - left) // size - self.n_left_chunks) * size
                last = (last + right) // size * size + size - 1
            most = [max(most[0], place - first), max(most[1], last - place)]
        return most[0], most[1]


class DynamicChunkContext(ChunkContext):
    """Training draws a chunk size for every batch; evaluation and streaming have a fixed one. One model serves all.

    Zhang et al. 2020 (U2), drawn as WeNet does: about half of the batches see everything, the others chunks of 1 to
    `max_chunk_size` frames and all that is before them.
    """

    def __init__(self, chunk_size: int, n_left_chunks: int, max_chunk_size: int):
        super().__init__(chunk_size, n_left_chunks)
        if max_chunk_size < 1:
            raise ValueError(f"context.max_chunk_size is at least 1 frame, {max_chunk_size} came")
        self.max_chunk_size = max_chunk_size

    def mask(self, n_frames: int, device: torch.device) -> Tensor | None:
        if not self.training:
            return super().mask(n_frames, device)
        draw = torch.randint(1, max(n_frames, 2), (), device=device)  # stays on the device: nothing waits for it
        size = torch.where(draw > n_frames // 2, n_frames, draw % self.max_chunk_size + 1)
        chunk = torch.arange(n_frames, device=device) // size
        return chunk[:, None] >= chunk
