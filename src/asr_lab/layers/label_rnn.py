"""Recurrent layers over labels: what a decoder knows of the labels that it has said."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from asr_lab.layers.dropout import Dropout
from asr_lab.layers.recurrence import Recurrence, State

LayerStates = tuple[State, ...]  # of each layer


class LabelRnn(nn.Module):
    """An embedding of V labels and of the beginning (id V), and `n_layers` cells, `d_hidden` wide all of them.

    `d_fed` numbers can enter the first layer beside each label. Whole sequences take the fused kernels of `Recurrence`,
    single steps its equations: on CPU a kernel's start costs more than one step of it.
    """

    def __init__(
        self, n_labels: int, d_fed: int, d_hidden: int, n_layers: int, cell: Callable[..., Recurrence], dropout: float
    ):
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"decoder.n_layers must be at least 1, {n_layers} came")
        self.start = n_labels
        self.embedding = nn.Embedding(n_labels + 1, d_hidden)
        self.dropout = Dropout(dropout)
        widths = [d_hidden + d_fed] + [d_hidden] * (n_layers - 1)
        self.layers = nn.ModuleList(cell(in_dim=width, d_hidden=d_hidden) for width in widths)

    def begin(self, like: Tensor) -> LayerStates:
        """Zeros for as many sequences as `like` (N,...) has rows, of its device and its type, float32 at least"""
        zeros = like.new_zeros(len(like), self.embedding.embedding_dim)
        zeros = zeros.to(torch.promote_types(like.dtype, torch.float32))
        return tuple((zeros,) * layer.n_states for layer in self.layers)  # pyright: ignore[reportOperatorIssue]

    def run(self, labels: Tensor, fed: Tensor | None, states: LayerStates) -> Tensor:
        """(N,L), (N,L,d_fed) or None -> (N,L,d_hidden); a position depends on no later label"""
        x, everywhere = self._inputs(labels, fed), torch.ones_like(labels, dtype=torch.bool)
        for layer, state in zip(self.layers, states, strict=True):
            x, _ = layer(self.dropout(x), everywhere, state)
        return x

    def step(self, labels: Tensor, fed: Tensor | None, states: LayerStates) -> LayerStates:
        """(N,), (N,d_fed) or None -> the states after one more label; the last layer's first is the output"""
        x, everywhere = self._inputs(labels, fed), torch.ones_like(labels, dtype=torch.bool)
        after = []
        for layer, state in zip(self.layers, states, strict=True):
            after.append(layer.step(layer.project(self.dropout(x), everywhere), state))  # pyright: ignore
            x = after[-1][0]
        return tuple(after)

    def _inputs(self, labels: Tensor, fed: Tensor | None) -> Tensor:
        x = self.embedding(labels)
        return x if fed is None else torch.cat([x, fed.to(x.dtype)], dim=-1)
