"""Multi-head self-attention (Vaswani et al. 2017) and the ways in which positions enter it.

One contract: `(x (B,U,D), mask (B|1, 1|U, U) bool or None) -> (B,U,D)`, and `stream(x, cache)` for the same frames
piece by piece. A subclass writes `scores`. Inside, heads and batch are one axis, heads first: all utterances have the
same positions, so that a head needs one product with them. Attention weights (B,H,U,K) pass through the submodule
`weights`, where a hook can look at them.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asr_lab.layers.dropout import Dropout
from asr_lab.layers.exporting import exporting
from asr_lab.layers.positions import AbsolutePositions, RelativePositions


class KeyValues(NamedTuple):
    """What attention remembers of earlier pieces."""

    k: Tensor  # (H*B, K, D/H)
    v: Tensor  # (H*B, K, D/H)
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
        """(B,U,D), bool (B|1,1|U,U) or None: True where the row's frame may look at the column's -> (B,U,D)"""
        q, k, v = self.project(x, first=0)
        return self._attend(q, k, v, mask, first_key=0)

    def stream(self, x: Tensor, cache: KeyValues | None, n_kept: int) -> tuple[Tensor, KeyValues]:
        """(B,U,D) frames that see each other and everything in the cache -> (B,U,D), the last `n_kept` for later"""
        first = cache.n_seen if cache is not None else 0
        q, k, v = self.project(x, first)
        if cache is not None:
            k, v = torch.cat([cache.k, k], dim=1), torch.cat([cache.v, v], dim=1)
        n_seen = first + x.shape[1]
        y = self._attend(q, k, v, None, first_key=n_seen - k.shape[1])
        start = max(0, k.shape[1] - n_kept)
        return y, KeyValues(k[:, start:], v[:, start:], n_seen)

    def scores(self, q: Tensor, k: Tensor, first_key: int) -> Tensor:
        """(H*B,U,D/H), (H*B,K,D/H) whose last U are the queries' own, position of the first key -> (H*B,U,K)"""
        return (q * (1 / math.sqrt(self.d_head))) @ k.transpose(1, 2)

    def project(self, x: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """(B,U,D), position of the first frame -> queries, keys, values, each (H*B,U,D/H)"""
        linears = (self.linear_q, self.linear_k, self.linear_v)
        if self.training:  # one product is faster than three; in evaluation a hook may look at each
            weight, bias = torch.cat([f.weight for f in linears]), torch.cat([f.bias for f in linears])
            qkv = nn.functional.linear(x, weight, bias).unflatten(-1, (3, self.n_heads, self.d_head))
        else:
            qkv = torch.stack([f(x).unflatten(-1, (self.n_heads, self.d_head)) for f in linears], dim=2)
        q, k, v = qkv.permute(2, 3, 0, 1, 4).flatten(1, 2)
        return q, k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, first_key: int) -> Tensor:
        scores = self.scores(q, k, first_key)
        if mask is not None:
            # Halved, the sum stays finite: a frame that may look at nothing (padding) gets no NaN.
            bars = torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device)
            bars.masked_fill_(~mask, torch.finfo(scores.dtype).min / 2)
            scores = scores.add_(bars.expand(v.shape[0] // self.n_heads, -1, -1).repeat(self.n_heads, 1, 1))
        by_head = scores.softmax(dim=-1).unflatten(0, (self.n_heads, -1))
        weights = self.weights(by_head.transpose(0, 1)).transpose(0, 1).flatten(0, 1)
        return self.linear_out((weights @ v).unflatten(0, (self.n_heads, -1)).permute(1, 2, 0, 3).flatten(2))


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
        content, position = self._queries(q)
        p = self.linear_pos(self.positions(k.shape[1], q.shape[1], q))  # (K+U, D)
        p = p.unflatten(-1, (self.n_heads, self.d_head)).permute(1, 2, 0)  # (H, D/H, K+U)
        if self.training and q.device.type == "cpu":
            by_position = DistanceScores.apply(position, p)
        else:
            by_distance = (position.flatten(1, 2) @ p).view(*position.shape[:3], -1)  # (H, B, U, K+U)
            by_position = relative_shift(by_distance, k.shape[1]).flatten(0, 1)
        return by_position.baddbmm_(content.flatten(0, 1), k.transpose(1, 2))

    def _queries(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """(H*B,U,D/H) -> what meets the keys and what meets the positions, each (H,B,U,D/H)"""
        q, scale = q.unflatten(0, (self.n_heads, -1)), 1 / math.sqrt(self.d_head)
        return (q + self.pos_bias_u[:, None, None].to(q)) * scale, (q + self.pos_bias_v[:, None, None].to(q)) * scale


class KeyPositionMultiHeadedAttention(RelPositionMultiHeadedAttention):
    """The variant that WeNet and PaddleSpeech train: p_j of the key's own position instead of p_{i-j}, no shift.

    score(i, j) = ((q_i + pos_bias_u) . k_j + (q_i + pos_bias_v) . p_j) / sqrt(d_head)
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float):
        super().__init__(d_model, n_heads, dropout)
        self.positions = AbsolutePositions(d_model)

    def scores(self, q: Tensor, k: Tensor, first_key: int) -> Tensor:
        queries = torch.cat(self._queries(q), dim=-1).flatten(0, 1)  # (H*B, U, 2 D/H)
        p = self.linear_pos(self.positions(k.shape[1], q, first_key)).unflatten(
            -1, (self.n_heads, self.d_head)
        )  # K,H,D/H
        p = p.transpose(0, 1)[:, None].expand(-1, q.shape[0] // self.n_heads, -1, -1).flatten(0, 1)
        return queries @ torch.cat([k, p], dim=-1).transpose(1, 2)  # both products in one


class DistanceScores(torch.autograd.Function):
    """q_i . p_{i-j} of all frames i and j, for training on a CPU: some rows at a time.

    Shifted scores of U frames need 2U columns of which each row uses half, and their gradient a matrix of zeros around
    it. A block of rows needs U columns and a few more; its zeros are written once and serve all blocks.
    """

    n_rows = 64

    @staticmethod
    def forward(ctx: Any, q: Tensor, p: Tensor) -> Tensor:
        """(H,B,U,D/H), (H,D/H,2U) for the distances U-1 .. -U -> (H*B,U,U)"""
        ctx.save_for_backward(q, p)
        n = q.shape[2]
        scores = q.new_empty(q.shape[0] * q.shape[1], n, n)
        by_head = scores.unflatten(0, q.shape[:2])
        for rows, columns in _blocks(n):
            block = q[:, :, rows]
            by_distance = (block.flatten(1, 2) @ p[:, :, columns]).unflatten(1, block.shape[1:3])
            by_head[:, :, rows] = relative_shift(by_distance, n)
        return scores

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        q, p = ctx.saved_tensors
        n, grad = q.shape[2], grads[0].unflatten(0, q.shape[:2])
        dq, dp = torch.empty_like(q), torch.zeros_like(p)
        by_distance = q.new_zeros(0)
        for rows, columns in _blocks(n):
            block = q[:, :, rows]
            shape = (*block.shape[:3], n + block.shape[2])
            if by_distance.shape != shape:  # the first block, and the last if it is smaller
                by_distance = q.new_zeros(shape)
            relative_shift(by_distance, n).copy_(grad[:, :, rows])
            flat = by_distance.flatten(1, 2)
            dq[:, :, rows] = (flat @ p[:, :, columns].transpose(1, 2)).unflatten(1, block.shape[1:3])
            dp[:, :, columns] += block.flatten(1, 2).transpose(1, 2) @ flat
        return dq, dp


def _blocks(n: int) -> list[tuple[slice, slice]]:
    """Rows of U, and those columns of 2U whose distances they need."""
    n_blocks = -(-n // DistanceScores.n_rows)
    ends = [n * (i + 1) // n_blocks for i in range(n_blocks)]
    return [(slice(a, b), slice(n - b, 2 * n - a)) for a, b in zip([0, *ends], ends, strict=False)]


def relative_shift(x: Tensor, n_keys: int) -> Tensor:
    """(H, B, U, K+U) scores by distance, from K-1 down to -U -> (H, B, U, K) scores by key.

    A view: row i of the result starts one column earlier than row i-1 (Dai et al. 2019, appendix B, without the copy).
    The last column is there so that rows of the result do not overlap in memory.
    """
    heads, batch, n_queries, width = x.shape
    if exporting():  # strides and offsets would be kept as the numbers of one length
        return x.flatten(2)[:, :, n_queries - 1 : -1].view(heads, batch, n_queries, width - 1)[..., :n_keys]
    strides = (x.stride(0), x.stride(1), width - 1, 1)
    return x.as_strided((heads, batch, n_queries, n_keys), strides, x.storage_offset() + n_queries - 1)


def _turned(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """(H*B,U,D/H), (U,D/H/2) each -> (H*B,U,D/H)"""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
