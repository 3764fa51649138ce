"""Transformer language model: causal self-attention, which keeps keys and values when it is asked step by step."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from asr_lab.layers.dropout import Dropout
from asr_lab.layers.positions import AbsolutePositions
from asr_lab.lm.neural import Memory, NeuralLm


class TransformerLm(NeuralLm):
    """Sinusoidal positions and `n_layers` pre-norm blocks with GELU (Radford et al. 2019).

    Sentences of one state may be of different lengths: each has its own number of keys.
    """

    def __init__(
        self, n_labels: int, d_model: int, n_layers: int, n_heads: int, ff_expansion: int, dropout: float
    ):  # fmt: skip
        if n_layers < 1:
            raise ValueError(f"n_layers is at least 1, {n_layers} came")
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"n_heads={n_heads} does not divide d_model={d_model}")
        super().__init__(n_labels, d_model, dropout)
        self.n_heads, self.d_head = n_heads, d_model // n_heads
        self.positions = AbsolutePositions(d_model)
        self.layers = nn.ModuleList(CausalBlock(d_model, n_heads, ff_expansion, dropout) for _ in range(n_layers))
        self.norm_out = nn.LayerNorm(d_model)

    def hidden(self, x: Tensor) -> Tensor:
        x = x + self.positions(x.shape[1], x)
        for layer in self.layers:
            x = layer(x)
        return self.norm_out(x)

    def nothing(self, n: int, device: torch.device) -> Memory:
        """Labels so far (n,); keys and values, each (n, layers, heads, 0, d_head)"""
        none = torch.zeros(n, len(self.layers), self.n_heads, 0, self.d_head, device=device)
        return torch.zeros(n, dtype=torch.long, device=device), none, none

    def step(self, x: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        lens, keys, values = memory
        longest = int(lens.max()) + 1
        room = longest - keys.shape[3]  # negative where longer sentences were left behind
        keys, values = (pad(past, (0, 0, 0, room)) for past in (keys, values))  # copies: other states stay as they are
        seen = torch.arange(longest, device=x.device) <= lens[:, None]  # (N, K)
        x = x + self.positions(longest, x)[lens]
        layers: Any = self.layers
        for i, layer in enumerate(layers):
            x = layer.step(x, keys[:, i], values[:, i], lens, seen)
        return self.norm_out(x), (lens + 1, keys, values)


class CausalBlock(nn.Module):
    """Self-attention and a feed-forward network, each behind a norm and beside a residual connection."""

    def __init__(self, d_model: int, n_heads: int, ff_expansion: int, dropout: float):
        super().__init__()
        self.n_heads = n_heads
        self.norm_attention = nn.LayerNorm(d_model)
        self.linear_qkv = nn.Linear(d_model, 3 * d_model)
        self.linear_out = nn.Linear(d_model, d_model)
        self.norm_feed_forward = nn.LayerNorm(d_model)
        self.feed_forward = nn.Sequential(
            nn.Linear(d_model, ff_expansion * d_model),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(ff_expansion * d_model, d_model),
        )
        self.branch = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B,L,D) -> (B,L,D)"""
        q, k, v = (t.transpose(1, 2) for t in self._project(x))  # (B, H, L, D/H)
        return self._add(x, scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2))

    def step(self, x: Tensor, keys: Tensor, values: Tensor, lens: Tensor, seen: Tensor) -> Tensor:
        """(N,D), (N,H,K,D/H) twice, into which place `lens` (N,) is written, (N,K) bool: what counts -> (N,D)"""
        rows = torch.arange(len(lens), device=lens.device)
        q, k, v = self._project(x)  # (N, H, D/H)
        keys[rows, :, lens], values[rows, :, lens] = k.to(keys.dtype), v.to(values.dtype)
        mask = seen[:, None, None]
        attended = scaled_dot_product_attention(q[:, :, None], keys.to(q), values.to(q), attn_mask=mask)
        return self._add(x, attended[:, :, 0])

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        """(...,D) -> queries, keys, values, each (...,H,D/H)"""
        qkv = self.linear_qkv(self.norm_attention(x)).unflatten(-1, (3, self.n_heads, -1))
        return qkv.unbind(-3)

    def _add(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.branch(self.linear_out(attended.flatten(-2)))
        return x + self.branch(self.feed_forward(self.norm_feed_forward(x)))
