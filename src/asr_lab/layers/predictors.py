"""Prediction networks of the transducer: what the labels said so far tell about the next one.

A state is a tuple of tensors with one row for each hypothesis, the output (N, out_dim) first, so that `tuple(s[rows]
for s in state)` picks hypotheses. The label `n_labels` stands for the beginning.
"""

import torch
from torch import Tensor, nn

from asr_lab.layers.dropout import Dropout
from asr_lab.layers.recurrence import Lstm

State = tuple[Tensor, ...]


class LstmPredictor(nn.Module):
    """Embedding and LSTM layers: remembers all labels (Graves 2012)."""

    def __init__(
        self,
        n_labels: int,
        d_embedding: int,
        d_hidden: int,
        n_layers: int,
        dropout: float,
        recurrent_init: str,
        forget_bias: float,
    ):
        super().__init__()
        if min(d_embedding, d_hidden, n_layers) < 1:
            raise ValueError(
                "predictor.d_embedding, d_hidden and n_layers must be positive, "
                f"{d_embedding}, {d_hidden} and {n_layers} came"
            )
        self.n_labels, self.out_dim = n_labels, d_hidden
        self.embedding = nn.Embedding(n_labels + 1, d_embedding)
        widths = [d_embedding, *[d_hidden] * (n_layers - 1)]
        self.cells = nn.ModuleList(Lstm(width, d_hidden, recurrent_init, forget_bias) for width in widths)
        self.dropout = Dropout(dropout)

    def forward(self, labels: Tensor) -> Tensor:
        """(B,L) -> (B,L+1,D): before the first label, after the first, ..., after the last"""
        labels = nn.functional.pad(labels, (1, 0), value=self.n_labels)
        x, mask = self.dropout(self.embedding(labels)), torch.ones_like(labels, dtype=torch.bool)
        for cell in self.cells:
            x = self.dropout(cell(x, mask)[0])
        return x

    def begin(self, n: int, device: torch.device) -> State:
        nothing = self.embedding.weight.new_zeros(n, self.out_dim)
        start = torch.full((n,), self.n_labels, device=device)
        return self.advance((nothing,) * (1 + 2 * len(self.cells)), start)

    def advance(self, state: State, labels: Tensor) -> State:
        """The state after one label (N,) more

        By the equations: oneDNN's LSTM orders its weights anew in every call, which took most of a beam search's time.
        """
        x, mask, after = self.dropout(self.embedding(labels)), torch.ones_like(labels, dtype=torch.bool), ()
        for i, cell in enumerate(self.cells):
            assert isinstance(cell, Lstm)
            carried = cell.step(cell.project(x, mask), state[1 + 2 * i : 3 + 2 * i])
            x, after = self.dropout(carried[0]), (*after, *carried)
        return x, *after


class StatelessPredictor(nn.Module):
    """Embeddings of the last `context` labels through a 1-D convolution over them and ReLU: remembers no more than
    that (Ghodsi et al. 2020, "RNN-transducer with stateless prediction network")."""

    def __init__(self, n_labels: int, d_embedding: int, context: int, dropout: float):
        super().__init__()
        if min(context, d_embedding) < 1:
            raise ValueError(f"predictor.context and d_embedding must be positive, {context} and {d_embedding} came")
        self.n_labels, self.out_dim, self.context = n_labels, d_embedding, context
        self.embedding = nn.Embedding(n_labels + 1, d_embedding)
        self.conv = nn.Conv1d(d_embedding, d_embedding, context)
        self.dropout = Dropout(dropout)

    def forward(self, labels: Tensor) -> Tensor:
        """(B,L) -> (B,L+1,D): before the first label, after the first, ..., after the last"""
        labels = nn.functional.pad(labels, (self.context, 0), value=self.n_labels)
        embedded = self.dropout(self.embedding(labels)).transpose(1, 2)  # (B, D, L+context)
        return torch.relu(self.conv(embedded)).transpose(1, 2)

    def begin(self, n: int, device: torch.device) -> State:
        return self._output(torch.full((n, self.context), self.n_labels, device=device))

    def advance(self, state: State, labels: Tensor) -> State:
        """The state after one label (N,) more"""
        return self._output(torch.cat([state[1][:, 1:], labels[:, None]], dim=1))

    def _output(self, last: Tensor) -> State:
        embedded = self.dropout(self.embedding(last)).transpose(1, 2)
        return torch.relu(self.conv(embedded))[:, :, 0], last
