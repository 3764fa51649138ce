"""Filters learned on raw audio (Zeghidour et al. 2018)."""

import math

import torch
from torch import Tensor, nn

from asr_lab.frontend.frames import samples
from asr_lab.layers.masks import valid_frames


class LearnedFilters(nn.Module):
    """Time-domain filter banks: complex filters, squared modulus, low-pass, logarithm, normalisation.

    After Zeghidour et al. (2018), "Learning filterbanks from raw speech for phone recognition". The filters start as
    Gabor wavelets at mel-spaced frequencies, as wide as mel triangles, so that at first the output is close to log-mel
    energies; then they are trained with the model. The low-pass is a fixed squared Hann window. The modulus is taken
    every `stride_ms` and not at every sample, which costs a sixteenth at 16 kHz and 1 ms: its bandwidth is that of a
    filter. Each output is normalised over the utterance's valid frames, as CMVN of features would do.

    A frame of raw audio in, a frame out: (B, T, samples of a frame) -> (B, T, n_filters), in time the same.
    """

    low_pass: Tensor

    def __init__(
        self,
        in_dim: int,
        sample_rate: int,
        frame_ms: float | None,
        n_filters: int,
        window_ms: float,
        stride_ms: float,
        f_min: float,
        floor: float,
    ):
        super().__init__()
        if frame_ms is None or in_dim != samples(frame_ms, sample_rate, "frame_ms"):
            raise ValueError("learned filters read raw audio, this front-end gives features; choose frontend=waveform")
        window, stride = samples(window_ms, sample_rate, "window_ms"), samples(stride_ms, sample_rate, "stride_ms")
        if in_dim % stride:
            raise ValueError(f"stride_ms={stride_ms} ({stride} samples) does not divide a frame of {in_dim} samples")
        if window < in_dim:
            raise ValueError(f"window_ms={window_ms} is shorter than a frame of {frame_ms} ms: samples would be lost")
        if n_filters < 1 or not floor > 0 or not 0 < f_min < sample_rate / 2:
            raise ValueError(
                f"n_filters and floor must be positive and f_min between 0 and {sample_rate / 2:g} Hz; {n_filters}, "
                f"{floor} and {f_min} came"
            )
        self.out_dim, self.floor, self.stride, self.per_frame = n_filters, floor, stride, in_dim // stride
        self.filters = nn.Parameter(mel_gabors(n_filters, window, sample_rate, f_min))
        n_smooth = max(self.per_frame, window // stride)
        low_pass = torch.hann_window(n_smooth + 2, periodic=False)[1:-1].square()
        self.register_buffer("low_pass", low_pass / low_pass.sum(), persistent=False)

    def output_lengths(self, lens: Tensor) -> Tensor:
        return lens

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,T,n_filters), (B,)"""
        valid = valid_frames(lens, feats.shape[1])[:, :, None]
        audio = feats.masked_fill(~valid, 0).flatten(1)  # (B, T * F); filters look beyond the last valid frame
        # Precision is needed: what is squared here and goes into a logarithm spans many orders of magnitude.
        with torch.autocast(audio.device.type, enabled=False):
            logs = (self._energies(audio.float(), lens) + self.floor).log()
        n = lens[:, None, None]
        mean = logs.masked_fill(~valid, 0).sum(dim=1, keepdim=True) / n
        centred = (logs - mean).masked_fill(~valid, 0)
        return centred / (centred.square().sum(dim=1, keepdim=True) / n + 1e-5).sqrt(), lens

    def _energies(self, audio: Tensor, lens: Tensor) -> Tensor:
        """(B, T * F), (B,) frames -> (B, T, n_filters), smoothed around the middle of every frame"""
        audio = _around(audio, self.filters.shape[-1], self.stride)[:, None]
        responses = nn.functional.conv1d(audio, self.filters.flatten(0, 1)[:, None], stride=self.stride)
        real, imaginary = responses.chunk(2, dim=1)  # (B, n_filters, T * per_frame)
        energies = real.square() + imaginary.square()
        # Filters ring on into the padding, the low-pass must not hear it there: an utterance alone has no padding.
        energies = energies * valid_frames(lens * self.per_frame, energies.shape[-1])[:, None]
        energies = _around(energies, len(self.low_pass), self.per_frame)
        smooth = nn.functional.conv1d(energies.flatten(0, 1)[:, None], self.low_pass[None, None], stride=self.per_frame)
        return smooth.view(*energies.shape[:2], -1).transpose(1, 2)


def _around(x: Tensor, window: int, stride: int) -> Tensor:
    """Zeros at both ends of the last axis, so that windows at every stride are centred on their own stride."""
    spare = window - stride
    return nn.functional.pad(x, (spare // 2, spare - spare // 2))


def mel_gabors(n_filters: int, window: int, sample_rate: int, f_min: float) -> Tensor:
    """(2, n_filters, window) real and imaginary parts of Gabor wavelets of unit energy.

    Filter n is centred on a frequency of the mel scale 2595 log10(1 + f / 700), and the width of its power response at
    half height is that of a triangle between its neighbours.
    """
    low, high = (math.log1p(f / 700) for f in (f_min, sample_rate / 2))
    edges = 700 * torch.linspace(low, high, n_filters + 2, dtype=torch.float64).expm1()
    centre, width = edges[1:-1, None], (edges[2:] - edges[:-2])[:, None] / 2
    sigma = math.sqrt(math.log(2)) / (math.pi * width)  # of exp(-t^2 / 2 sigma^2), s
    time = (torch.arange(window, dtype=torch.float64) - (window - 1) / 2) / sample_rate
    envelope = torch.exp(-((time / sigma) ** 2) / 2)
    envelope = envelope / envelope.square().sum(dim=1, keepdim=True).sqrt()
    phase = 2 * math.pi * centre * time
    return torch.stack([envelope * phase.cos(), envelope * phase.sin()]).float()
