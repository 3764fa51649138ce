"""Conformer encoder (Gulati et al. 2020), with any of the self-attentions, in one pass or piece by piece."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asr_lab.layers.context import Context
from asr_lab.layers.dropout import Dropout
from asr_lab.layers.masks import attention_mask, valid_frames
from asr_lab.layers.norms import MaskedBatchNorm
from asr_lab.layers.positions import PlacedInput
from asr_lab.layers.receptive_field import ReceptiveField
from asr_lab.layers.self_attention import KeyValues
from asr_lab.layers.streaming import is_last, refusal, stream_frames
from asr_lab.layers.subsampling import to_width


class BlockState(NamedTuple):
    """What a block remembers of earlier pieces."""

    keys: KeyValues | None
    before: Tensor | None  # (B, kernel_size-1, D) input of the depthwise convolution


class ConformerState(NamedTuple):
    """What the encoder remembers of earlier pieces."""

    subsampling: Any
    blocks: list[BlockState]
    n_seen: int  # encoder frames
    ended: bool


class ConformerEncoder(nn.Module):
    """Subsampling, then `n_layers` Conformer blocks of width `d_model`. It streams if nothing looks ahead of its chunk.

    `norm` is that of the convolution modules: `layer`, or `batch` as published, here over valid frames only.
    """

    memory_growth = "quadratic"
    exports = True
    scales_input = False
    has_final_norm = False

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        n_layers: int,
        ff_expansion: int,
        kernel_size: int,
        causal: bool,
        norm: str,
        dropout: float,
        subsampling: Callable[..., Any],
        attention: Callable[..., Any],
        context: Context,
    ):
        super().__init__()
        self.out_dim, self.kernel_size, self.causal, self.context = d_model, kernel_size, causal, context
        self.subsampling = subsampling(in_dim=in_dim, out_dim=d_model)
        self.embed = to_width(self.subsampling, d_model)
        blocks = []
        for _ in range(n_layers):
            self_attn, convolution = attention(d_model=d_model), ConvolutionModule(d_model, kernel_size, causal, norm)
            blocks.append(ConformerBlock(d_model, self_attn, convolution, ff_expansion, dropout))
        self.layers = nn.ModuleList(blocks)
        absolute = any(block.self_attn.wants_absolute_positions for block in blocks)
        # Sinusoids are of size 1: beside them an unscaled input would be small (Vaswani et al. 2017, section 3.4).
        self.place = PlacedInput(d_model, self.scales_input or absolute, absolute)
        self.norm_out = nn.LayerNorm(d_model) if self.has_final_norm else nn.Identity()
        self.stream_frames = stream_frames(context, self.subsampling, causal)

    @property
    def receptive_field(self) -> ReceptiveField:
        left, right = self.kernel_size - 1, 0
        if not self.causal:
            left, right = left // 2, left // 2
        return self.subsampling.receptive_field.then(*self.context.reach(len(self.layers), left, right))

    def output_lengths(self, lens: Tensor) -> Tensor:
        return self.subsampling.output_lengths(lens)

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, lens = self.subsampling(feats, lens)
        x = self.place(self.embed(x))
        mask = valid_frames(lens, x.shape[1])  # (B, U)
        seen = attention_mask(mask, self.context.mask(x.shape[1], x.device))
        for layer in self.layers:
            x = layer(x, mask, seen)
        return self.norm_out(x).masked_fill(~mask[:, :, None], 0), lens

    def stream(self, feats: Tensor, state: ConformerState | None) -> tuple[Tensor, ConformerState]:
        """(B, stream_frames, F) (the last piece may be shorter), state (None: the beginning) -> (B,U,D), state

        Raises:
            ConfigError: something looks ahead (the keys to change are named), or the pieces are not of one length.
        """
        if self.stream_frames is None:
            raise refusal(self.context, self.subsampling, self.causal)
        if state is None:
            state = ConformerState(None, [BlockState(None, None)] * len(self.layers), 0, False)
        ended = is_last(feats.shape[1], self.stream_frames, state.ended)
        x, below = self.subsampling.stream(feats, state.subsampling)
        x = self.place(self.embed(x), first=state.n_seen)
        n_kept = self.context.chunk_size * self.context.n_left_chunks  # pyright: ignore[reportOptionalOperand]
        kept = []
        layers: Any = self.layers
        for layer, before in zip(layers, state.blocks, strict=True):
            x, after = layer.stream(x, before, n_kept)
            kept.append(after)
        return self.norm_out(x), ConformerState(below, kept, state.n_seen + x.shape[1], ended)


class U2Encoder(ConformerEncoder):
    """The Conformer that WeNet and PaddleSpeech train as U2: the input times sqrt(D), a layer norm after the blocks.

    Their trained parameters load through `asr_lab.encoders.wenet`.
    """

    scales_input = True
    has_final_norm = True


class ConformerBlock(nn.Module):
    """x + FF/2, + attention, + convolution, + FF/2, layer norm: the macaron of Gulati et al. 2020, equation 1."""

    def __init__(
        self, d_model: int, self_attn: Any, convolution: "ConvolutionModule", ff_expansion: int, dropout: float
    ):
        super().__init__()
        self.feed_forward_in = _feed_forward(d_model, ff_expansion, dropout)
        self.norm_attention = nn.LayerNorm(d_model)
        self.self_attn = self_attn
        self.convolution: ConvolutionModule = convolution
        self.feed_forward_out = _feed_forward(d_model, ff_expansion, dropout)
        self.norm_out = nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, seen: Tensor) -> Tensor:
        """(B,U,D), (B,U) bool: valid, (B,U|1,U) bool: may be looked at -> (B,U,D)"""
        x = torch.add(x, self.feed_forward_in(x), alpha=0.5)
        x = x + self.dropout(self.self_attn(self.norm_attention(x), seen))
        x = x + self.dropout(self.convolution(x, mask))
        return self.norm_out(torch.add(x, self.feed_forward_out(x), alpha=0.5))

    def stream(self, x: Tensor, state: BlockState, n_kept: int) -> tuple[Tensor, BlockState]:
        """(B,U,D), what came before, how many keys later pieces need -> (B,U,D), what comes before the next piece"""
        x = torch.add(x, self.feed_forward_in(x), alpha=0.5)
        attended, keys = self.self_attn.stream(self.norm_attention(x), state.keys, n_kept)
        x = x + attended
        convolved, before = self.convolution.stream(x, state.before)
        x = x + convolved
        return self.norm_out(torch.add(x, self.feed_forward_out(x), alpha=0.5)), BlockState(keys, before)


class ConvolutionModule(nn.Module):
    """Layer norm, pointwise GLU, depthwise convolution, norm, SiLU, pointwise: local patterns (Gulati et al. 2020).

    What a causal convolution finds before the first frame is what a frame of zeros would have been after the GLU, as in
    WeNet. What lies after the last frame is zero: padding and batch neighbours change no output.
    """

    def __init__(self, d_model: int, kernel_size: int, causal: bool, norm: str):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd (the window is centred), {kernel_size} came")
        if norm not in ("layer", "batch"):
            raise ValueError(f"norm (of the convolution modules) is layer or batch, {norm!r} came")
        self.causal, self.n_before = causal, kernel_size - 1
        padding = 0 if causal else kernel_size // 2
        self.norm_in = nn.LayerNorm(d_model)
        self.pointwise_in = nn.Linear(d_model, 2 * d_model)
        self.depthwise = nn.Conv1d(d_model, d_model, kernel_size, padding=padding, groups=d_model)
        self.norm = nn.LayerNorm(d_model) if norm == "layer" else MaskedBatchNorm(d_model)
        self.pointwise_out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D), (B,U) bool -> (B,U,D)"""
        x = self._gated(x) * mask[:, :, None]
        if self.causal:
            x = torch.cat([self._before(x), x], dim=1)
        return self._convolved(x, mask)

    def stream(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B,U,D), (B,kernel_size-1,D) or None at the beginning -> (B,U,D), (B,kernel_size-1,D)"""
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        x = self._gated(x)
        x = torch.cat([self._before(x) if before is None else before, x], dim=1)
        return self._convolved(x, mask), x[:, x.shape[1] - self.n_before :]

    def _gated(self, x: Tensor) -> Tensor:
        return nn.functional.glu(self.pointwise_in(self.norm_in(x)), dim=-1)

    def _before(self, x: Tensor) -> Tensor:
        # Asked of the layer, and not its bias read: of a quantised layer that is no tensor.
        gated = nn.functional.glu(self.pointwise_in(x.new_zeros(1, 1, x.shape[2])), dim=-1).to(x.dtype)
        return gated.expand(x.shape[0], self.n_before, -1)

    def _convolved(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)  # (B, U, D) -> (B, D, U) -> (B, U, D)
        x = self.norm(x, mask) if isinstance(self.norm, MaskedBatchNorm) else self.norm(x)
        return self.pointwise_out(nn.functional.silu(x))


def _feed_forward(d_model: int, expansion: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(d_model),
        nn.Linear(d_model, expansion * d_model),
        nn.SiLU(),
        Dropout(dropout),
        nn.Linear(expansion * d_model, d_model),
        Dropout(dropout),
    )
