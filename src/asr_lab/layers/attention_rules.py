"""Attention rules: how well a key fits a query, from concatenation to location-aware, under one contract.

`rule(query (B,Q,Dq), keys (B,K,Dk), mask (B|1,Q|1,K) bool or None, previous weights or None)` gives
`(context (B,Q,out_dim), weights (B,H,Q,K))`. A decoder that asks step by step calls `rule.project(keys)` once and
passes the result in place of `keys`. Keys in the padding must be finite; encoders give zeros there. The weights pass
through the submodule `weights` (dropout), where a hook can look at them; those returned are without dropout.

`SelfAttention` makes a rule the self-attention of a Transformer or Conformer, so that a grid can compare rules.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from asr_lab.layers.dropout import Dropout

BLOCK = 32  # queries whose hidden activations (B, BLOCK, K, d_attention) exist at the same time


class Projected(NamedTuple):
    """What a rule needs of its keys, computed once for many queries."""

    keys: Tensor  # (B, K, ...), compared with queries
    values: Tensor  # (B, K, out_dim), summed up


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last axis where `mask` (broadcastable) is True, 0 elsewhere; rows that see nothing are all 0.

    Computed in float32 at least: scores of any size in float16 and bfloat16 stay finite, gradients too.
    """
    if mask is None:
        return scores.softmax(dim=-1)
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    filled = wide.masked_fill(~mask, torch.finfo(wide.dtype).min)
    return filled.softmax(dim=-1).masked_fill(~mask, 0).to(scores.dtype)


class _Rule(nn.Module):
    """What the rules share; a subclass has `project` and `scores`."""

    uses_previous = False  # whether the weights depend on those of the step before

    def __init__(self, out_dim: int, dropout: float):
        super().__init__()
        self.out_dim = out_dim
        self.weights = Dropout(dropout)

    def forward(
        self,
        query: Tensor,
        keys: Tensor | Projected,
        mask: Tensor | None,
        previous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        if mask is not None and mask.dim() != 3:
            raise ValueError(f"a mask of (batch, queries or 1, keys) is wanted, one of shape {tuple(mask.shape)} came")
        mask = None if mask is None else mask[:, None]  # for all heads
        known = keys if isinstance(keys, Projected) else self.project(keys)
        weights = masked_softmax(self.scores(query, known.keys, mask, previous), mask)
        return self.context(self.weights(weights), known.values), weights

    def project(self, keys: Tensor) -> Projected:
        """(B,K,Dk) -> what many calls can share"""
        raise NotImplementedError

    def scores(self, query: Tensor, keys: Tensor, mask: Tensor | None, previous: Tensor | None) -> Tensor:
        """(B,Q,Dq), projected keys, mask (B|1,1,Q|1,K), (B,H,Q,K) -> (B,H,Q,K)"""
        raise NotImplementedError

    def context(self, weights: Tensor, values: Tensor) -> Tensor:
        """(B,1,Q,K), (B,K,Dk) -> (B,Q,Dk): the keys themselves are summed"""
        return weights[:, 0] @ values


class ConcatAttention(_Rule):
    """score = w . [q; k]: a linear layer on the concatenation, as introductions to attention have it.

    Without a non-linearity this is w_q . q + w_k . k, computed in that form. The first term is the same for all keys of
    a query, so the softmax cancels it: every query gets the same weights, and w_q gets no gradient. Luong et al. (2015)
    have a tanh in between; that is `AdditiveAttention`.
    """

    def __init__(self, query_dim: int, key_dim: int, dropout: float):
        super().__init__(key_dim, dropout)
        self.linear_q = nn.Linear(query_dim, 1, bias=False)
        self.linear_k = nn.Linear(key_dim, 1)

    def project(self, keys: Tensor) -> Projected:
        return Projected(self.linear_k(keys), keys)

    def scores(self, query: Tensor, keys: Tensor, mask: Tensor | None, previous: Tensor | None) -> Tensor:
        return (self.linear_q(query) + keys.transpose(1, 2))[:, None]


class AdditiveAttention(_Rule):
    """score = v . tanh(W q + U k + b) (Bahdanau et al. 2015, appendix A.1.2).

    The tanh is of (B, Q, K, d_attention) numbers. They are made for `BLOCK` queries at a time and made again in the
    backward step, so that only a block of them exists at once.
    """

    def __init__(self, query_dim: int, key_dim: int, d_attention: int, dropout: float):
        super().__init__(key_dim, dropout)
        self.linear_q = nn.Linear(query_dim, d_attention)
        self.linear_k = nn.Linear(key_dim, d_attention, bias=False)
        self.linear_v = nn.Linear(d_attention, 1, bias=False)

    def project(self, keys: Tensor) -> Projected:
        return Projected(self.linear_k(keys), keys)

    def scores(self, query: Tensor, keys: Tensor, mask: Tensor | None, previous: Tensor | None) -> Tensor:
        query = self.linear_q(query)
        if query.shape[1] <= BLOCK:
            return self._fit(query, keys)[:, None]
        fit = self._fit_again if torch.is_grad_enabled() else self._fit
        blocks = [fit(q, keys) for q in query.split(BLOCK, dim=1)]
        return torch.cat(blocks, dim=1)[:, None]

    def _fit_again(self, query: Tensor, keys: Tensor) -> Tensor:
        again = checkpoint(self._fit, query, keys, use_reentrant=False, preserve_rng_state=False)
        assert isinstance(again, Tensor)
        return again

    def _fit(self, query: Tensor, keys: Tensor) -> Tensor:
        """(B,Q,A), (B,K,A) -> (B,Q,K)"""
        return self.linear_v(torch.tanh(query[:, :, None] + keys[:, None])).squeeze(-1)


class LocationAwareAttention(AdditiveAttention):
    """score_j = v . tanh(W q + U k_j + V f_j + b), f = F * previous weights (Chorowski et al. 2015, equations 8 and 9).

    The weights of a step depend on those of the step before, so it is for a decoder, and of no use as self-attention,
    whose queries are all asked at once. `previous` is what the last call returned, for each query its own (hypotheses
    of a beam, say); None (the first step, of one query) stands for equal weights on all that the mask lets see.
    """

    uses_previous = True

    def __init__(
        self, query_dim: int, key_dim: int, d_attention: int, n_filters: int, kernel_size: int, dropout: float
    ):
        super().__init__(query_dim, key_dim, d_attention, dropout)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd (the window is centred), {kernel_size} came")
        self.filters = nn.Conv1d(1, n_filters, kernel_size, padding=kernel_size // 2, bias=False)
        self.linear_f = nn.Linear(n_filters, d_attention, bias=False)

    def scores(self, query: Tensor, keys: Tensor, mask: Tensor | None, previous: Tensor | None) -> Tensor:
        if previous is None:
            if query.shape[1] != 1:
                raise ValueError(f"location-aware attention takes one query at a time, {query.shape[1]} came")
            previous = masked_softmax(query.new_zeros(keys.shape[0], 1, 1, keys.shape[1]), mask)
        found = self.filters(previous.to(keys.dtype).flatten(0, 2)[:, None]).transpose(1, 2)  # (B * Q, K, n_filters)
        located = self.linear_f(found).unflatten(0, (-1, query.shape[1])) + keys[:, None]
        return self.linear_v(torch.tanh(located + self.linear_q(query)[:, :, None])).squeeze(-1)[:, None]


class DotAttention(_Rule):
    """score = (W_q q) . (W_k k) / sqrt(d_attention), one head that sums the keys themselves (Vaswani et al. 2017)."""

    def __init__(self, query_dim: int, key_dim: int, d_attention: int, dropout: float):
        super().__init__(key_dim, dropout)
        self.linear_q = nn.Linear(query_dim, d_attention)
        self.linear_k = nn.Linear(key_dim, d_attention)
        self.scale = 1 / math.sqrt(d_attention)

    def project(self, keys: Tensor) -> Projected:
        return Projected(self.linear_k(keys), keys)

    def scores(self, query: Tensor, keys: Tensor, mask: Tensor | None, previous: Tensor | None) -> Tensor:
        return ((self.linear_q(query) * self.scale) @ keys.transpose(1, 2))[:, None]


class MultiHeadAttention(_Rule):
    """`n_heads` dot rules side by side, each `d_attention / n_heads` wide, with their own values, and a linear layer.

    Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(self, query_dim: int, key_dim: int, d_attention: int, n_heads: int, dropout: float):
        super().__init__(d_attention, dropout)
        if n_heads < 1 or d_attention % n_heads:
            raise ValueError(f"n_heads={n_heads} does not divide d_attention={d_attention}")
        self.n_heads, self.scale = n_heads, math.sqrt(n_heads / d_attention)
        self.linear_q = nn.Linear(query_dim, d_attention)
        self.linear_k = nn.Linear(key_dim, d_attention)
        self.linear_v = nn.Linear(key_dim, d_attention)
        self.linear_out = nn.Linear(d_attention, d_attention)

    def project(self, keys: Tensor) -> Projected:
        return Projected(self.linear_k(keys), self.linear_v(keys))

    def scores(self, query: Tensor, keys: Tensor, mask: Tensor | None, previous: Tensor | None) -> Tensor:
        return (self._heads(self.linear_q(query)) * self.scale) @ self._heads(keys).transpose(-1, -2)

    def context(self, weights: Tensor, values: Tensor) -> Tensor:
        return self.linear_out((weights @ self._heads(values)).transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """(B,N,D) -> (B,H,N,D/H)"""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    """A rule between the frames of one sequence, and a linear layer: what encoders take as `attention`.

    It knows no positions; an encoder that cares adds sinusoids to its input (`wants_absolute_positions`).
    """

    wants_absolute_positions = True

    def __init__(self, d_model: int, rule: Callable[..., _Rule]):
        super().__init__()
        self.rule = rule(query_dim=d_model, key_dim=d_model)
        self.linear_out = nn.Linear(self.rule.out_dim, d_model)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B,U,D), bool (B|1, U|1, U) or None: True where the row's frame may look at the column's -> (B,U,D)"""
        return self.linear_out(self.rule(x, x, mask)[0])

    def stream(self, x: Tensor, cache: Tensor | None, n_kept: int) -> tuple[Tensor, Tensor]:
        """(B,U,D) frames that see each other and everything in the cache -> (B,U,D), the last `n_kept` for later"""
        keys = x if cache is None else torch.cat([cache, x], dim=1)
        return self.linear_out(self.rule(x, keys, None)[0]), keys[:, max(0, keys.shape[1] - n_kept) :]
