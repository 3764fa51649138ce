"""LSTM language model (Sundermeyer et al. 2012)."""

from typing import Any

import torch
from torch import Tensor, nn

from asr_lab.layers.dropout import Dropout
from asr_lab.layers.recurrence import Lstm
from asr_lab.lm.neural import Memory, NeuralLm


class LstmLm(NeuralLm):
    """`n_layers` of `d_hidden` LSTM cells, dropout between them, and a projection to the width of the embedding."""

    def __init__(
        self,
        n_labels: int,
        d_embedding: int,
        d_hidden: int,
        n_layers: int,
        recurrent_init: str,
        forget_bias: float,
        dropout: float,
    ):
        if n_layers < 1:
            raise ValueError(f"n_layers is at least 1, {n_layers} came")
        super().__init__(n_labels, d_embedding, dropout)
        widths = [d_embedding] + [d_hidden] * (n_layers - 1)
        self.layers = nn.ModuleList(Lstm(width, d_hidden, recurrent_init, forget_bias) for width in widths)
        self.between = Dropout(dropout)
        self.projection = nn.Linear(d_hidden, d_embedding)

    def nothing(self, n: int, device: torch.device) -> Memory:
        """Output and cell, each (n, d_hidden), of every layer"""
        return tuple(
            torch.zeros(n, self.projection.in_features, device=device) for _ in range(2 * len(self.layers))
        )  # fmt: skip

    def hidden(self, x: Tensor) -> Tensor:
        return self._run(x, self.nothing(x.shape[0], x.device))[0]

    def step(self, x: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        y, memory = self._run(x[:, None], memory)
        return y[:, 0], memory

    def _run(self, x: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        layers: Any = self.layers
        after: list[Tensor] = []
        for i, layer in enumerate(layers):
            x, state = layer(self.between(x) if i else x, mask, memory[2 * i : 2 * i + 2])
            after += state
        return self.projection(x), tuple(after)
