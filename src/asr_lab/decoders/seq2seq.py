"""Sequence to sequence without attention: one vector is all that the decoder knows of the utterance."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from asr_lab.decoders.attention import RecurrentDecoder, State
from asr_lab.layers.label_rnn import LabelRnn
from asr_lab.layers.readout import fit_to
from asr_lab.layers.recurrence import Recurrence
from asr_lab.layers.shared_memory import SharedMemory


class Seq2SeqDecoder(RecurrentDecoder):
    """c is what a readout makes of the frames: read beside every label, and s_0 = tanh(W c) (Cho et al. 2014).

    The memory cells of LSTM layers begin at zero.
    """

    def __init__(
        self,
        in_dim: int,
        n_labels: int,
        readout: Callable,
        cell: Callable[..., Recurrence],
        d_hidden: int,
        n_layers: int,
        scheduled_sampling: float,
        label_smoothing: float,
        dropout: float,
    ):
        rnn = LabelRnn(n_labels, in_dim, d_hidden, n_layers, cell, dropout)
        super().__init__(n_labels, rnn, in_dim, scheduled_sampling, label_smoothing)
        self.readout = readout(in_dim=in_dim, n_directions=1)
        if not self.readout.one:
            raise ValueError("decoder.readout must give one vector an utterance; choose last_state, mean or attention")
        self.first = nn.Linear(in_dim, n_layers * d_hidden)

    def attach(self, encoder: Any) -> None:
        """The last state of an encoder of two directions is the last frame of one and the first of the other."""
        fit_to(self.readout, encoder)

    def remember(self, hidden: Tensor, lens: Tensor) -> State:
        context = self.readout(hidden, lens)[0]  # (B, 1, D)
        first = torch.tanh(self.first(context[:, 0])).chunk(len(self.rnn.layers), dim=1)
        zeros = self.rnn.begin(first[0])
        layers = tuple((h, *rest) for h, (_, *rest) in zip(first, zeros, strict=True))
        return State(SharedMemory((context,), 1), layers, context[:, 0], None)

    def fed(self, context: Tensor) -> Tensor | None:
        return context

    def look(self, memory: SharedMemory, query: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return memory.tensors[0].expand(-1, query.shape[1], -1), None
