"""Multi-head self-attention (Vaswani et al. 2017) and the ways in which positions enter it.

One contract: `(x (B,U,D), mask (B|1, U, U) bool or None) -> (B,U,D)`, and `stream(x, cache)` for the same frames piece
by piece. A subclass writes `scores`. Attention weights (B,H,U,K) pass through the submodule `weights`, where a hook can
look at them.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asr_lab.layers.dropout import Dropout
from asr_lab.layers.positions import AbsolutePositions, RelativePositions


class KeyValues(NamedTuple):
    """What attention remembers of earlier pieces."""

    k: Tensor  # (B, H, K, D/H)
    v: Tensor  # (B, H, K, D/H)
    n_seen: int  # frames that went by, forgotten ones included


class DotSelfAttention(nn.Module):
    """softmax(q k^T / sqrt(d_head)) v. Knows no positions: the encoder adds sinusoids to its input."""

    wants_absolute_positions = True

    def __init__(self, d_model: int, n_heads: int, dropout: float):
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"n_heads={n_heads} does not divide d_model={d_model}")
        self.n_heads, self.d_head = n_heads, d_model // n_heads
        self.linear_q = nn.Linear(d_model, d_model)
        self.linear_k = nn.Linear(d_model, d_model)
        self.linear_v = nn.Linear(d_model, d_model)
        self.linear_out = nn.Linear(d_model, d_model)
        self.weights = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B,U,D), bool (B|1,U,U) or None: True where the row's frame may look at the column's -> (B,U,D)"""
        q, k, v = self.project(x, first=0)
        return self._attend(q, k, v, mask, first_key=0)

    def stream(self, x: Tensor, cache: KeyValues | None, n_kept: int) -> tuple[Tensor, KeyValues]:
        """(B,U,D) frames that see each other and everything in the cache -> (B,U,D), the last `n_kept` for later"""
        first = cache.n_seen if cache is not None else 0
        q, k, v = self.project(x, first)
        if cache is not None:
            k, v = torch.cat([cache.k, k], dim=2), torch.cat([cache.v, v], dim=2)
        n_seen = first + x.shape[1]
        y = self._attend(q, k, v, None, first_key=n_seen - k.shape[2])
        start = max(0, k.shape[2] - n_kept)
        return y, KeyValues(k[:, :, start:], v[:, :, start:], n_seen)

    def scores(self, q: Tensor, k: Tensor, first_key: int) -> Tensor:
        """(B,H,U,D/H), (B,H,K,D/H) whose last U are the queries' own, position of the first key -> (B,H,U,K)"""
        return (q * (1 / math.sqrt(self.d_head))) @ k.transpose(-1, -2)

    def project(self, x: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """(B,U,D), position of the first frame -> queries, keys, values, each (B,H,U,D/H)"""
        heads = (self.n_heads, self.d_head)
        q, k, v = (f(x).unflatten(-1, heads).transpose(1, 2) for f in (self.linear_q, self.linear_k, self.linear_v))
        return q, k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, first_key: int) -> Tensor:
        scores = self.scores(q, k, first_key)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
        weights = self.weights(scores.softmax(dim=-1))
        return self.linear_out((weights @ v).transpose(1, 2).flatten(2))


class RotarySelfAttention(DotSelfAttention):
    """Queries and keys are turned by angles that grow with the position (Su et al. 2021, RoFormer, equation 34).

    Features 2i and 2i+1 of a head make a plane, turned by position / 10,000^(2i/d_head): q_i . k_j knows i - j only.
    """

    wants_absolute_positions = False

    def __init__(self, d_model: int, n_heads: int, dropout: float):
        super().__init__(d_model, n_heads, dropout)
        if self.d_head % 2:
            raise ValueError(
                f"rotary positions turn pairs of features: d_model / n_heads must be even, {d_model} / {n_heads} came"
            )
        self.positions = AbsolutePositions(self.d_head)

    def project(self, x: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().project(x, first)
        sin, cos = self.positions(x.shape[1], q, first).unflatten(-1, (-1, 2)).unbind(-1)  # each (U, D/H/2)
        return _turned(q, sin, cos), _turned(k, sin, cos), v


class RelPositionMultiHeadedAttention(DotSelfAttention):
    """Scores know the distance between query and key (Transformer-XL, Dai et al. 2019, section 3.3).

    score(i, j) = ((q_i + pos_bias_u) . k_j + (q_i + pos_bias_v) . p_{i-j}) / sqrt(d_head)
    """

    wants_absolute_positions = False

    def __init__(self, d_model: int, n_heads: int, dropout: float):
        super().__init__(d_model, n_heads, dropout)
        self.positions = RelativePositions(d_model)
        self.linear_pos = nn.Linear(d_model, d_model, bias=False)
        self.pos_bias_u = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_heads, self.d_head)))
        self.pos_bias_v = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_heads, self.d_head)))

    def scores(self, q: Tensor, k: Tensor, first_key: int) -> Tensor:
        p = self.linear_pos(self.positions(k.shape[2], q.shape[2], q))  # (K+U, D)
        p = p.unflatten(-1, (self.n_heads, self.d_head)).transpose(0, 1)  # (H, K+U, D/H)
        scale = 1 / math.sqrt(self.d_head)
        content = ((q + self.pos_bias_u[:, None]) * scale) @ k.transpose(-1, -2)  # (B, H, U, K)
        position = ((q + self.pos_bias_v[:, None]) * scale) @ p.transpose(-1, -2)  # (B, H, U, K+U)
        return content + relative_shift(position, k.shape[2])


class KeyPositionMultiHeadedAttention(RelPositionMultiHeadedAttention):
    """The variant that WeNet and PaddleSpeech train: p_j of the key's own position instead of p_{i-j}, no shift.

    score(i, j) = ((q_i + pos_bias_u) . k_j + (q_i + pos_bias_v) . p_j) / sqrt(d_head)
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float):
        super().__init__(d_model, n_heads, dropout)
        self.positions = AbsolutePositions(d_model)

    def scores(self, q: Tensor, k: Tensor, first_key: int) -> Tensor:
        p = self.linear_pos(self.positions(k.shape[2], q, first_key))  # (K, D)
        p = p.unflatten(-1, (self.n_heads, self.d_head)).transpose(0, 1)  # (H, K, D/H)
        scale = 1 / math.sqrt(self.d_head)
        content = ((q + self.pos_bias_u[:, None]) * scale) @ k.transpose(-1, -2)  # (B, H, U, K)
        return content + ((q + self.pos_bias_v[:, None]) * scale) @ p.transpose(-1, -2)


def relative_shift(x: Tensor, n_keys: int) -> Tensor:
    """(B, H, U, K+U) scores by distance, from K-1 down to -U -> (B, H, U, K) scores by key.

    A view: row i of the result starts one column earlier than row i-1 (Dai et al. 2019, appendix B, without the copy).
    The last column is there so that rows of the result do not overlap in memory.
    """
    batch, heads, n_queries, width = x.shape
    strides = (x.stride(0), x.stride(1), width - 1, 1)
    return x.as_strided((batch, heads, n_queries, n_keys), strides, x.storage_offset() + n_queries - 1)


def _turned(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """(B,H,U,D/H), (U,D/H/2) each -> (B,H,U,D/H)"""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
