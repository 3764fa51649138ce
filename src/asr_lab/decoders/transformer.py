"""Transformer decoder (Vaswani et al. 2017): predicts label after label, attending to labels said and to all frames."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asr_lab.layers.dropout import Dropout
from asr_lab.layers.label_loss import smoothed_nll, with_end, with_start
from asr_lab.layers.masks import valid_frames
from asr_lab.layers.positions import PlacedInput
from asr_lab.layers.shared_memory import SharedMemory


class TransformerState(NamedTuple):
    """N hypotheses after P - 1 labels each."""

    memory: SharedMemory  # of each layer keys and values (B,H,U,D/H) of the frames; last, which frames are speech
    past: list[tuple[Tensor, Tensor]]  # of each layer keys and values (N,H,P,D/H) of what was said
    log_probs: Tensor  # (N, V+1) of what comes next


class TransformerDecoder(nn.Module):
    """Pre-norm blocks of causal self-attention, attention to the frames and a feed-forward network; sinusoids.

    Label V is the start on the way in and the end on the way out. Dropout is on embeddings and on the output of every
    branch. `label_smoothing` (Szegedy et al. 2016, section 7) gives that share of the target to all V+1 labels alike,
    in training only: in evaluation `loss` is the negative log-likelihood. With `tied`, one matrix serves as embedding
    and as output layer (Press and Wolf 2017).
    """

    def __init__(
        self,
        in_dim: int,
        n_labels: int,
        d_model: int,
        n_layers: int,
        n_heads: int,
        ff_expansion: int,
        dropout: float,
        label_smoothing: float,
        tied: bool,
    ):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is a share in [0, 1), {label_smoothing} came")
        if n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, {n_layers} came")
        self.n_labels, self.label_smoothing = n_labels, label_smoothing
        self.embed = nn.Embedding(n_labels + 1, d_model)
        # As an output layer the matrix wants small weights; `place` makes up for them, as published.
        nn.init.normal_(self.embed.weight, std=d_model**-0.5 if tied else 1.0)
        self.place = PlacedInput(d_model, scaled=tied, absolute=True)
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(Block(in_dim, d_model, n_heads, ff_expansion, dropout) for _ in range(n_layers))
        self.norm_out = nn.LayerNorm(d_model)
        self.output = nn.Linear(d_model, n_labels + 1)
        if tied:
            self.output.weight = self.embed.weight

    def loss(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,U,D), (B,), (B,L), (B,) -> (B,) negative log-likelihood in nats of the labels and the end"""
        log_probs, _ = self.posteriors(hidden, lens, labels, label_lens)
        targets, valid = with_end(labels, label_lens, self.n_labels)
        return smoothed_nll(log_probs, targets, valid, self.label_smoothing if self.training else 0.0)

    def min_frames(self, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,L), (B,) -> (B,): one frame can say everything"""
        return torch.ones_like(label_lens)

    def posteriors(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> tuple[Tensor, Tensor]:
        """-> log-probabilities (B,L+1,V+1) of each label and the end, given the labels before; valid (B,L+1)"""
        log_probs, _ = self._predict(
            with_start(labels, self.n_labels), [None] * len(self.layers), self._memory(hidden, lens)
        )
        return log_probs, with_end(labels, label_lens, self.n_labels)[1]

    # Label after label: `Scorer` of asr_lab.decoding

    def begin(self, hidden: Tensor, lens: Tensor) -> TransformerState:
        """(B,U,D), (B,) -> B hypotheses that have said nothing"""
        memory = self._memory(hidden, lens)
        start = torch.full((hidden.shape[0], 1), self.n_labels, device=hidden.device)
        log_probs, past = self._predict(start, [None] * len(self.layers), memory)
        return TransformerState(memory, past, log_probs[:, -1])

    def scores(self, state: TransformerState) -> Tensor:
        """(N, V+1)"""
        return state.log_probs

    def advance(self, state: TransformerState, labels: Tensor) -> TransformerState:
        log_probs, past = self._predict(labels[:, None], state.past, state.memory)
        return TransformerState(state.memory, past, log_probs[:, -1])

    def select(self, state: TransformerState, rows: Tensor) -> TransformerState:
        past = [(k[rows], v[rows]) for k, v in state.past]
        return TransformerState(state.memory.select(rows), past, state.log_probs[rows])

    def _memory(self, hidden: Tensor, lens: Tensor) -> SharedMemory:
        layers: Any = self.layers
        keys_values = [x for layer in layers for x in layer.cross_attn.keys_values(hidden)]
        return SharedMemory((*keys_values, valid_frames(lens, hidden.shape[1])), 1)

    def _predict(self, said: Tensor, past: list, memory: SharedMemory) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """(N,P) labels that come after those in `past` -> (N,P,V+1) in float32, `past` with them"""
        first = past[0][0].shape[2] if past[0] else 0
        x = self.dropout(self.place(self.embed(said), first))
        kept = []
        *frames, valid = memory.tensors
        for i, layer in enumerate(self.layers):
            x, keys_values = layer(x, past[i], SharedMemory((*frames[2 * i : 2 * i + 2], valid), memory.width))
            kept.append(keys_values)
        return self.output(self.norm_out(x)).float().log_softmax(dim=-1), kept


class Block(nn.Module):
    """Self-attention, attention to the frames and a feed-forward network, each beside a residual connection."""

    def __init__(self, in_dim: int, d_model: int, n_heads: int, ff_expansion: int, dropout: float):
        super().__init__()
        self.norm_self = nn.LayerNorm(d_model)
        self.self_attn = Attention(d_model, d_model, n_heads)
        self.norm_cross = nn.LayerNorm(d_model)
        self.cross_attn = Attention(d_model, in_dim, n_heads)
        self.norm_feed_forward = nn.LayerNorm(d_model)
        self.feed_forward = nn.Sequential(
            nn.Linear(d_model, ff_expansion * d_model),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(ff_expansion * d_model, d_model),
        )
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None, memory: SharedMemory
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(N,P,D), keys and values before, those of the frames and their mask -> (N,P,D), keys and values for later"""
        y = self.norm_self(x)
        k, v = self.self_attn.keys_values(y)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        x = x + self.dropout(self.self_attn(y, k, v, causal=past is None))
        frames_k, frames_v, valid = memory.tensors
        # The hypotheses of an utterance ask the same keys: side by side as one row of queries.
        y = memory.by_utterance(self.norm_cross(x)).flatten(1, 2)
        y = self.cross_attn(y, frames_k, frames_v, seen=valid[:, None, None])
        x = x + self.dropout(y.reshape(x.shape))
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x))), (k, v)


class Attention(nn.Module):
    """Multi-head dot-product attention whose keys and values can be kept. Keys need no bias: the softmax cancels it."""

    def __init__(self, d_model: int, in_dim: int, n_heads: int):
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"n_heads={n_heads} does not divide d_model={d_model}")
        self.n_heads = n_heads
        self.linear_q = nn.Linear(d_model, d_model)
        self.linear_k = nn.Linear(in_dim, d_model, bias=False)
        self.linear_v = nn.Linear(in_dim, d_model)
        self.linear_out = nn.Linear(d_model, d_model)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B,K,in_dim) -> two of (B,H,K,D/H)"""
        return self._heads(self.linear_k(x)), self._heads(self.linear_v(x))

    def forward(self, x: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None, causal: bool = False) -> Tensor:
        """(B,Q,D), keys and values (B,H,K,D/H), which keys may be looked at (B,1,1,K) -> (B,Q,D)"""
        q = self._heads(self.linear_q(x))
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal)
        return self.linear_out(y.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
