"""Recurrent encoders: any cell, stacked, in one direction or both (Graves et al. 2013)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from asr_lab.layers.dropout import Dropout
from asr_lab.layers.gradient_filter import GradientFilter
from asr_lab.layers.masks import valid_frames
from asr_lab.layers.receptive_field import ReceptiveField
from asr_lab.layers.recurrence import State


class RecurrentEncoder(nn.Module):
    """Subsampling, then `n_layers` of [cell -> layer norm -> dropout -> connection to the next], then a read-out.

    `d_hidden` is the width of one direction. An encoder of one direction with frames for its read-out streams, where
    the subsampling does. torch.export gets a scan over time: right at any length, slower than what runs here.
    """

    memory_growth = "linear"
    exports = True

    def __init__(
        self,
        in_dim: int,
        d_hidden: int,
        n_layers: int,
        bidirectional: bool,
        layer_norm: bool,
        dropout: float,
        subsampling: Callable[..., Any],
        cell: Callable[..., Any],
        connection: Callable[..., Any],
        filter: GradientFilter,
        readout: Callable[..., Any],
    ):
        super().__init__()
        if d_hidden < 1 or n_layers < 1:
            raise ValueError(f"d_hidden and n_layers must be positive, {d_hidden} and {n_layers} came")
        self.bidirectional, self.filter = bidirectional, filter
        n_directions = 2 if bidirectional else 1
        self.out_dim = n_directions * d_hidden
        self.subsampling = subsampling(in_dim=in_dim, out_dim=self.out_dim)
        self.readout = readout(in_dim=self.out_dim, n_directions=n_directions)
        self.layers, self.connections = nn.ModuleList(), nn.ModuleList()
        width = self.subsampling.out_dim
        for i in range(n_layers):
            cells = [cell(in_dim=width, d_hidden=d_hidden) for _ in range(n_directions)]
            self.layers.append(RecurrentLayer(cells, filter, layer_norm, dropout))
            if i < n_layers - 1:
                self.connections.append(connection(in_dim=width, out_dim=self.out_dim))
                width = self.connections[i].out_dim
        streams = self.subsampling.streams and not bidirectional and not self.readout.one
        self.stream_frames = self.subsampling.factor if streams else None

    @property
    def receptive_field(self) -> ReceptiveField:
        return self.subsampling.receptive_field.all(right=self.readout.one or self.bidirectional)

    def output_lengths(self, lens: Tensor) -> Tensor:
        out_lens = self.subsampling.output_lengths(lens)
        return out_lens.clamp(max=1) if self.readout.one else out_lens

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, lens = self.subsampling(feats, lens)
        mask, mirrored = valid_frames(lens, x.shape[1]), mirror(lens, x.shape[1])
        for i, layer in enumerate(self.layers):
            y = layer(x, mask, mirrored)
            x = self.connections[i](x, y) if i < len(self.connections) else y
        return self.readout(x, lens)

    def stream(self, feats: Tensor, state: tuple[Any, list[State]] | None) -> tuple[Tensor, tuple[Any, list[State]]]:
        """(B,stream_frames,F), state -> (B,1,D), state; what is carried is what each layer's cell carries."""
        before, states = state or (None, [None] * len(self.layers))
        x, before = self.subsampling.stream(feats, before)
        after = []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, RecurrentLayer)
            y, cell_state = layer.stream(x, states[i])
            x = self.connections[i](x, y) if i < len(self.connections) else y
            after.append(cell_state)
        return x, (before, after)


class RecurrentLayer(nn.Module):
    """One cell ahead and perhaps one backwards, side by side; layer norm or none; dropout.

    The backward cell reads each utterance reversed within its own length, so that it starts at the last valid frame
    and padding never enters a state.
    """

    def __init__(self, cells: list[nn.Module], filter: GradientFilter, layer_norm: bool, dropout: float):
        super().__init__()
        self.cells, self.filter = nn.ModuleList(cells), filter
        width = sum(cell.out_dim for cell in cells)  # pyright: ignore[reportCallIssue, reportArgumentType]
        self.norm = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, mirrored: Tensor) -> Tensor:
        """(B,U,D_in), (B,U) bool, (B,U) indices of `mirror` -> (B,U,D)"""

        def recur(x: Tensor) -> Tensor:
            y, _ = self.cells[0](x, mask)
            if len(self.cells) == 1:
                return y
            back, _ = self.cells[1](reorder(x, mirrored), mask)
            return torch.cat([y, reorder(back, mirrored)], dim=-1)

        return self.dropout(self.norm(self.filter(recur, x, self.cells)))

    def stream(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """(B,U,D_in), state -> (B,U,D), state"""
        y, after = self.cells[0](x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), state)
        return self.dropout(self.norm(y)), after


def mirror(lens: Tensor, n_frames: int) -> Tensor:
    """(B,) -> (B, U) indices that reverse the valid frames of each utterance and leave its padding in place."""
    index = torch.arange(n_frames, device=lens.device)
    return torch.where(index < lens[:, None], lens[:, None] - 1 - index, index)


def reorder(x: Tensor, index: Tensor) -> Tensor:
    """(B,U,D) frames in the order of `index` (B,U)"""
    return x.gather(1, index[:, :, None].expand_as(x))
