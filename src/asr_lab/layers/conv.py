"""Convolutions over time on (B,T,D): masked, centred or looking back, whole or piece by piece; and blocks of them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asr_lab.layers.dropout import Dropout
from asr_lab.layers.masks import valid_frames
from asr_lab.layers.norms import MaskedBatchNorm
from asr_lab.layers.receptive_field import ReceptiveField
from asr_lab.layers.stages import odd, whole


class Past:
    """What causal convolutions remember between two pieces: they take their frames in turn and leave new ones."""

    def __init__(self, state: list[Tensor] | None):
        self._before = iter(state or [])
        self.state: list[Tensor] = []  # for the next piece

    def extend(self, x: Tensor, n_frames: int) -> Tensor:
        """(B,T,D) -> (B,n_frames+T,D): the frames before this piece in front, zeros at the beginning"""
        before = next(self._before, None)
        x = torch.cat([x.new_zeros(x.shape[0], n_frames, x.shape[2]) if before is None else before, x], dim=1)
        self.state.append(x[:, x.shape[1] - n_frames :])
        return x


class TimeConv(nn.Conv2d):
    """Convolution over time: output frame u sees input frames up to `u * stride + n_right`, `dilation` apart.

    T frames give ceil(T / stride). With `n_bands` the input is that many bands of `in_dim` channels side by side, and
    each band is convolved with the same weights.

    It is a 2-D convolution with a kernel of one band: on (B,T,D) as it lies in memory PyTorch's CPU kernels for
    channels-last images do without a copy. Against `nn.Conv1d` on the transposed input, a depthwise step of 33 taps on
    256 channels took 0.38 of the time in float32 and 0.21 in bfloat16; 5 taps took 1.4 and 0.8 (medians of 15, forward
    and backward, interleaved, one thread).
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel_size: int,
        n_right: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        n_bands: int = 1,
        bias: bool = True,
    ):
        whole(kernel_size=kernel_size, stride=stride, dilation=dilation)
        if stride > kernel_size:
            raise ValueError(f"a stride of {stride} leaves frames out that kernel_size={kernel_size} does not reach")
        super().__init__(
            in_dim, out_dim, (kernel_size, 1), (stride, 1), dilation=(dilation, 1), groups=groups, bias=bias
        )
        self.n_bands, self.n_right = n_bands, n_right
        self.n_left = (kernel_size - 1) * dilation - n_right

    def field(self, below: ReceptiveField) -> ReceptiveField:
        return below.then(self.n_left, self.n_right, self.stride[0])

    def forward(self, x: Tensor, mask: Tensor, past: Past | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(B,T,n_bands*in_dim), (B,T) bool: valid, what earlier pieces left -> (B,U,n_bands*out_dim)"""
        x = x.masked_fill(~mask[:, :, None], 0)
        if past is None:
            x = nn.functional.pad(x, (0, 0, self.n_left, self.n_right))
        else:  # n_right is stride - 1 then: only a last piece can end within a stride
            x = nn.functional.pad(past.extend(x, self.n_left), (0, 0, 0, -x.shape[1] % self.stride[0]))
        image = x.unflatten(2, (self.n_bands, -1)).permute(0, 3, 1, 2)  # (B, in_dim, T, n_bands)
        return super().forward(image).permute(0, 2, 3, 1).flatten(2)


class FrameNorm(nn.LayerNorm):
    """Layer normalisation (Ba et al. 2016) of each frame, called as `MaskedBatchNorm` is."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(B,U,D), (B,U) bool -> (B,U,D)"""
        return super().forward(x)


class NoNorm(nn.Module):
    """The identity, called as `MaskedBatchNorm` is."""

    def __init__(self, d_model: int):
        super().__init__()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D), (B,U) bool -> (B,U,D)"""
        return x


def norm_of(name: str, d_model: int) -> nn.Module:
    """A norm `(x (B,U,D), mask (B,U)) -> (B,U,D)`.

    batch: `MaskedBatchNorm`; layer: `FrameNorm`, which knows no other utterance; none.
    """
    kinds: dict[str, Callable[[int], nn.Module]] = {"batch": MaskedBatchNorm, "layer": FrameNorm, "none": NoNorm}
    if name not in kinds:
        raise ValueError(f"norm is batch, layer or none, {name!r} came")
    return kinds[name](d_model)


class SqueezeExcitation(nn.Module):
    """x * sigmoid(W2 swish(W1 mean(x) + b1) + b2), the mean over the valid frames (Han et al. 2020, section 2.2.1)."""

    def __init__(self, d_model: int, reduction: int):
        super().__init__()
        if not 1 <= reduction <= d_model:
            raise ValueError(f"reduction is between 1 and the {d_model} channels of a block, {reduction} came")
        self.squeeze = nn.Linear(d_model, d_model // reduction)
        self.excite = nn.Linear(d_model // reduction, d_model)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D), (B,U) bool -> (B,U,D)"""
        n_valid = mask.sum(dim=1, keepdim=True).clamp(min=1)
        mean = x.masked_fill(~mask[:, :, None], 0).sum(dim=1, dtype=torch.float32) / n_valid
        gate = self.excite(nn.functional.silu(self.squeeze(mean))).sigmoid()
        return x * gate[:, None].to(x.dtype)


class Style(NamedTuple):
    """What all convolutions of an encoder have in common."""

    norm: str
    activation: Callable[[Tensor], Tensor]
    dropout: float
    causal: bool = False
    reduction: int | None = None  # of squeeze-excitation; None: without it

    def n_right(self, kernel_size: int, stride: int, dilation: int) -> int:
        """Frames that a kernel looks ahead; a causal one to the end of its own stride, no frame of which is lost so."""
        if self.causal:
            return stride - 1
        odd(kernel_size=kernel_size)
        return (kernel_size - 1) * dilation // 2


class SeparableConv(nn.Module):
    """Depthwise convolution over time, pointwise convolution over channels, norm: a time-channel separable one."""

    def __init__(self, in_dim: int, out_dim: int, kernel_size: int, stride: int, dilation: int, style: Style):
        super().__init__()
        bias = style.norm == "none"  # a norm has its own
        n_right = style.n_right(kernel_size, stride, dilation)
        self.depthwise = TimeConv(in_dim, in_dim, kernel_size, n_right, stride, dilation, groups=in_dim, bias=False)
        self.pointwise = nn.Linear(in_dim, out_dim, bias=bias)
        self.norm = norm_of(style.norm, out_dim)

    def forward(self, x: Tensor, mask: Tensor, past: Past | None) -> tuple[Tensor, Tensor]:
        """(B,T,D), (B,T) bool: valid -> (B,U,D'), (B,U) bool"""
        y = self.pointwise(self.depthwise(x, mask, past))
        mask = every(mask, self.depthwise.stride[0], y.shape[1])
        return self.norm(y, mask), mask


class SeparableBlock(nn.Module):
    """`n_repeats` separable convolutions with an activation after each, around them a pointwise convolution and norm.

    Figure 1 of Kriman et al. 2019 (QuartzNet); with squeeze-excitation before the sum, equation 4 of Han et al. 2020
    (ContextNet). The last convolution has the stride. Without `residual` nothing goes around.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel_size: int,
        n_repeats: int,
        style: Style,
        stride: int = 1,
        dilation: int = 1,
        residual: bool = True,
    ):
        super().__init__()
        whole(width=out_dim, n_repeats=n_repeats, stride=stride)
        self.out_dim, self.stride, self.activation = out_dim, stride, style.activation
        self.convs = nn.ModuleList(
            SeparableConv(
                in_dim if i == 0 else out_dim,
                out_dim,
                kernel_size,
                stride if i == n_repeats - 1 else 1,
                dilation,
                style,
            )
            for i in range(n_repeats)
        )
        self.gate = None if style.reduction is None else SqueezeExcitation(out_dim, style.reduction)
        self.around = nn.Linear(in_dim, out_dim, bias=False) if residual else None
        self.norm_around = norm_of(style.norm, out_dim) if residual else None
        self.dropout = Dropout(style.dropout)

    def field(self, below: ReceptiveField) -> ReceptiveField:
        for conv in self.convs:
            assert isinstance(conv, SeparableConv)
            below = conv.depthwise.field(below)
        return below

    def forward(self, x: Tensor, mask: Tensor, past: Past | None = None) -> tuple[Tensor, Tensor]:
        """(B,T,D), (B,T) bool: valid -> (B,U,D'), (B,U) bool; U = ceil(T / stride)"""
        y = x
        for i, conv in enumerate(self.convs):
            y, mask = conv(y if i == 0 else self.dropout(self.activation(y)), mask, past)
        if self.gate is not None:
            y = self.gate(y, mask)
        if self.around is not None and self.norm_around is not None:
            y = y + self.norm_around(self.around(every(x, self.stride, y.shape[1])), mask)
        return self.dropout(self.activation(y)), mask


def valid(feats: Tensor, lens: Tensor) -> Tensor:
    """(B,T,F), (B,) -> (B,T) bool"""
    return valid_frames(lens, feats.shape[1])


def every(x: Tensor, stride: int, n_frames: int) -> Tensor:
    """(B,T,...) -> (B,n_frames,...): every `stride`-th frame.

    A slice would do the same with another formula for its length, and torch.export holds the two for unequal.
    """
    return x if stride == 1 else x.index_select(1, torch.arange(n_frames, device=x.device) * stride)
