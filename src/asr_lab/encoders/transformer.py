"""Transformer encoder (Vaswani et al. 2017) behind subsampling, with any of the self-attentions; it may stream."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from asr_lab.layers.context import Context
from asr_lab.layers.dropout import Dropout
from asr_lab.layers.masks import attention_mask, valid_frames
from asr_lab.layers.positions import PlacedInput
from asr_lab.layers.receptive_field import ReceptiveField
from asr_lab.layers.self_attention import KeyValues
from asr_lab.layers.stochastic_depth import StochasticDepth
from asr_lab.layers.streaming import is_last, refusal, stream_frames
from asr_lab.layers.subsampling import to_width


class TransformerState(NamedTuple):
    """What the encoder remembers of earlier pieces."""

    subsampling: Any
    keys: list[KeyValues | None]
    n_seen: int  # encoder frames
    ended: bool


class TransformerEncoder(nn.Module):
    """Subsampling, the input times sqrt(`d_model`), then `n_layers` blocks. It streams with a context of chunks.

    `norm` is `pre` (each branch gets a normed input; a last norm on top: Xiong et al. 2020) or `post` (each sum is
    normed, as published). `stochastic_depth` is the probability with which the last block's branches are skipped.
    """

    memory_growth = "quadratic"
    exports = True

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        n_layers: int,
        ff_expansion: int,
        norm: str,
        dropout: float,
        stochastic_depth: float,
        subsampling: Callable[..., Any],
        attention: Callable[..., Any],
        context: Context,
    ):
        super().__init__()
        if norm not in ("pre", "post"):
            raise ValueError(f"norm is pre or post, {norm!r} came")
        self.out_dim, self.context = d_model, context
        self.subsampling = subsampling(in_dim=in_dim, out_dim=d_model)
        self.embed = to_width(self.subsampling, d_model)
        blocks = []
        for i in range(n_layers):
            branch_dropout = nn.Sequential(
                Dropout(dropout), StochasticDepth.of_layer(stochastic_depth, i + 1, n_layers)
            )
            self_attn = attention(d_model=d_model)
            blocks.append(TransformerBlock(d_model, self_attn, ff_expansion, norm == "pre", dropout, branch_dropout))
        self.layers = nn.ModuleList(blocks)
        self.place = PlacedInput(d_model, True, any(block.self_attn.wants_absolute_positions for block in blocks))
        self.norm_out = nn.LayerNorm(d_model) if norm == "pre" else nn.Identity()
        self.stream_frames = stream_frames(context, self.subsampling, causal=True)

    @property
    def receptive_field(self) -> ReceptiveField:
        return self.subsampling.receptive_field.then(*self.context.reach(len(self.layers)))

    def output_lengths(self, lens: Tensor) -> Tensor:
        return self.subsampling.output_lengths(lens)

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, lens = self.subsampling(feats, lens)
        x = self.place(self.embed(x))
        mask = valid_frames(lens, x.shape[1])  # (B, U)
        seen = attention_mask(mask, self.context.mask(x.shape[1], x.device))
        for layer in self.layers:
            x = layer(x, seen)
        return self.norm_out(x).masked_fill(~mask[:, :, None], 0), lens

    def stream(self, feats: Tensor, state: TransformerState | None) -> tuple[Tensor, TransformerState]:
        """(B, stream_frames, F) (the last piece may be shorter), state (None: the beginning) -> (B,U,D), state

        Raises:
            ConfigError: something looks ahead (the keys to change are named), or the pieces are not of one length.
        """
        if self.stream_frames is None:
            raise refusal(self.context, self.subsampling, causal=True)
        if state is None:
            state = TransformerState(None, [None] * len(self.layers), 0, False)
        ended = is_last(feats.shape[1], self.stream_frames, state.ended)
        x, below = self.subsampling.stream(feats, state.subsampling)
        x = self.place(self.embed(x), first=state.n_seen)
        n_kept = self.context.chunk_size * self.context.n_left_chunks  # pyright: ignore[reportOptionalOperand]
        kept = []
        layers: Any = self.layers
        for layer, before in zip(layers, state.keys, strict=True):
            x, after = layer.stream(x, before, n_kept)
            kept.append(after)
        return self.norm_out(x), TransformerState(below, kept, state.n_seen + x.shape[1], ended)


class TransformerBlock(nn.Module):
    """Self-attention and a feed-forward network with ReLU, each beside a residual connection."""

    def __init__(
        self, d_model: int, self_attn: Any, ff_expansion: int, pre_norm: bool, dropout: float, branch: nn.Module
    ):
        super().__init__()
        self.pre_norm = pre_norm
        self.norm_attention = nn.LayerNorm(d_model)
        self.self_attn = self_attn
        self.norm_feed_forward = nn.LayerNorm(d_model)
        self.feed_forward = nn.Sequential(
            nn.Linear(d_model, ff_expansion * d_model),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(ff_expansion * d_model, d_model),
        )
        self.branch = branch  # what happens to the output of each branch

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """(B,U,D), (B,U|1,U) bool: may be looked at -> (B,U,D)"""
        if self.pre_norm:
            x = x + self.branch(self.self_attn(self.norm_attention(x), seen))
            return x + self.branch(self.feed_forward(self.norm_feed_forward(x)))
        x = self.norm_attention(x + self.branch(self.self_attn(x, seen)))
        return self.norm_feed_forward(x + self.branch(self.feed_forward(x)))

    def stream(self, x: Tensor, keys: KeyValues | None, n_kept: int) -> tuple[Tensor, KeyValues]:
        """(B,U,D), keys that came before, how many of them later pieces need -> (B,U,D), keys for the next piece"""
        if self.pre_norm:
            attended, kept = self.self_attn.stream(self.norm_attention(x), keys, n_kept)
            x = x + attended
            return x + self.feed_forward(self.norm_feed_forward(x)), kept
        attended, kept = self.self_attn.stream(x, keys, n_kept)
        x = self.norm_attention(x + attended)
        return self.norm_feed_forward(x + self.feed_forward(x)), kept
