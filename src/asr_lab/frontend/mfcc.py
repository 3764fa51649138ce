"""Mel-frequency cepstral coefficients (Davis & Mermelstein 1980) with deltas."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from asr_lab.frontend.cmvn import Cmvn
from asr_lab.frontend.kaldi import KaldiMel


class Mfcc:
    """The first `n_mfcc` coefficients of an orthonormal DCT-II over Kaldi's log-mel energies, liftered, with deltas.

    The coefficients are those of Kaldi's `compute-mfcc-feats --dither=0`; with `use_energy` the first one is the
    frame's log energy, without it C0. Behind them come `n_deltas` orders of deltas: F = n_mfcc * (1 + n_deltas).
    Neighbouring cepstra are not neighbouring frequencies, so bands cannot be masked.
    """

    has_frequency_axis = False

    def __init__(
        self,
        mel: KaldiMel,
        n_mfcc: int,
        lifter: float,
        use_energy: bool,
        n_deltas: int,
        delta_window: int,
        cmvn: Cmvn,
        head: Callable,
    ):
        if not 1 <= n_mfcc <= mel.n_mels:
            raise ValueError(f"n_mfcc={n_mfcc} coefficients come from {mel.n_mels} mel energies: 1 to as many")
        if not lifter > 0 or n_deltas < 0 or delta_window < 1:
            raise ValueError(
                f"lifter and delta_window must be positive, n_deltas must not be negative; {lifter}, {delta_window} "
                f"and {n_deltas} came"
            )
        order = torch.arange(n_mfcc, dtype=torch.float64)
        # Liftering evens out the variances of the coefficients; with variance normalisation it has no effect.
        lifting = 1 + lifter / 2 * torch.sin(math.pi * order / lifter)
        self.dct = (dct(mel.n_mels, n_mfcc) * lifting).float()
        self.mel, self.use_energy, self.n_deltas, self.delta_window = mel, use_energy, n_deltas, delta_window
        self.out_dim = n_mfcc * (1 + n_deltas)
        self.cmvn, self.head = cmvn, head

    def n_frames(self, n_samples: int) -> int:
        return self.mel.n_frames(n_samples)

    def __call__(self, audio: Tensor) -> Tensor:
        """(S,) -> (T, F)"""
        mel, energy = self.mel(audio)
        orders = [mel @ self.dct]
        if self.use_energy:
            orders[0][:, 0] = energy
        for _ in range(self.n_deltas):
            orders.append(deltas(orders[-1], self.delta_window))
        return torch.cat(orders, dim=1)


def dct(n_inputs: int, n_outputs: int) -> Tensor:
    """(n_inputs, n_outputs) orthonormal DCT-II, float64"""
    time, order = torch.arange(n_inputs, dtype=torch.float64)[:, None], torch.arange(n_outputs, dtype=torch.float64)
    matrix = torch.cos(math.pi / n_inputs * (time + 0.5) * order) * math.sqrt(2 / n_inputs)
    matrix[:, 0] /= math.sqrt(2)
    return matrix


def deltas(feats: Tensor, window: int) -> Tensor:
    """Slope of each feature by regression over `window` frames on both sides: (T, F) -> (T, F).

    d_t = sum_n n (c_{t+n} - c_{t-n}) / (2 sum_n n^2), Young et al., The HTK Book, eq. 5.16;
    the first and the last frame are repeated beyond the ends.
    """
    n_frames = len(feats)
    padded = torch.cat([feats[:1].expand(window, -1), feats, feats[-1:].expand(window, -1)])
    slope = torch.zeros_like(feats)
    for n in range(1, window + 1):
        slope += n * (padded[window + n :][:n_frames] - padded[window - n :][:n_frames])
    return slope / (2 * sum(n * n for n in range(1, window + 1)))
