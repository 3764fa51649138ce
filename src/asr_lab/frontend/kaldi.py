"""Log-mel filter banks with Kaldi's numbers.

The algorithm is that of Kaldi's `compute-fbank-feats` (Povey et al. 2011, "The Kaldi speech recognition toolkit";
src/feat/feature-window.cc and mel-computations.cc): 16-bit sample scale, the mean of every frame removed, pre-emphasis
within the frame, Povey's window, a power-of-two transform and triangles that are linear in mel = 1127 ln(1 + f / 700).
Dither is 0, because features are computed once and kept; added noise is an augmentation.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from asr_lab.frontend.cmvn import Cmvn
from asr_lab.frontend.frames import samples

INT16 = 32768.0  # Kaldi reads samples as integers
EPSILON = torch.finfo(torch.float32).eps  # its floor under logarithms


class KaldiMel:
    """Log-mel energies (T, n_mels) and the frames' log energies (T,).

    With `snip_edges` every frame lies within the recording, T = 1 + (S - window) // hop; a recording shorter than a
    window, for which Kaldi gives nothing, is padded with zeros to one. Without it the recording is mirrored at its
    ends, T = round(S / hop), at least 1.
    """

    def __init__(
        self,
        sample_rate: int,
        n_mels: int,
        window_ms: float,
        hop_ms: float,
        f_min: float,
        f_max_below_nyquist: float,
        preemphasis: float,
        snip_edges: bool,
    ):
        for name, ms in (("window_ms", window_ms), ("hop_ms", hop_ms)):
            samples(ms, sample_rate, name)
        if not 0 <= preemphasis <= 1:
            raise ValueError(f"preemphasis is a coefficient in [0, 1], {preemphasis} came")
        # Cut, not rounded: 11025 Hz has frames of 275 samples in Kaldi.
        self.n_window, self.hop = max(2, int(sample_rate * window_ms / 1000)), int(sample_rate * hop_ms / 1000)
        self.window = torch.hann_window(self.n_window, periodic=False, dtype=torch.float64).pow(0.85).float()
        self.n_fft = 1 << (self.n_window - 1).bit_length()
        f_max = sample_rate / 2 - f_max_below_nyquist
        self.filters = mel_filters(sample_rate, self.n_fft, n_mels, f_min, f_max)
        self.n_mels, self.preemphasis, self.snip_edges = n_mels, preemphasis, snip_edges

    def n_frames(self, n_samples: int) -> int:
        if self.snip_edges:
            return 1 + max(0, n_samples - self.n_window) // self.hop
        return max(1, (n_samples + self.hop // 2) // self.hop)

    @torch.no_grad()
    def __call__(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(S,) -> (T, n_mels), (T,)"""
        frames = self._frames(audio * INT16)
        frames = frames - frames.mean(dim=1, keepdim=True)
        energies = frames.square().sum(dim=1)  # Kaldi's raw energy: without pre-emphasis and window
        before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
        spectrum = torch.fft.rfft((frames - self.preemphasis * before) * self.window, n=self.n_fft)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.filters).clamp(min=EPSILON).log(), energies.clamp(min=EPSILON).log()

    def _frames(self, audio: Tensor) -> Tensor:
        """(S,) -> (T, window)"""
        if self.snip_edges:
            missing = max(0, self.n_window - len(audio))
            return torch.nn.functional.pad(audio, (0, missing)).unfold(0, self.n_window, self.hop)
        first = self.hop // 2 - self.n_window // 2
        last = first + (self.n_frames(len(audio)) - 1) * self.hop + self.n_window
        # Mirrored as often as a short recording needs: 2 1 0 | 0 1 2 | 2 1 0 | 0 1 2
        position = torch.arange(first, last).remainder(2 * len(audio))
        position = torch.minimum(position, 2 * len(audio) - 1 - position)
        return audio[position].unfold(0, self.n_window, self.hop)


class KaldiFbank:
    """Log-mel energies as Kaldi's `compute-fbank-feats --dither=0` gives them, see `KaldiMel`."""

    has_frequency_axis = True

    def __init__(
        self,
        sample_rate: int,
        n_mels: int,
        window_ms: float,
        hop_ms: float,
        f_min: float,
        f_max_below_nyquist: float,
        preemphasis: float,
        snip_edges: bool,
        cmvn: Cmvn,
        head: Callable,
    ):
        self.mel = KaldiMel(sample_rate, n_mels, window_ms, hop_ms, f_min, f_max_below_nyquist, preemphasis, snip_edges)
        self.out_dim = n_mels
        self.cmvn, self.head = cmvn, head

    def n_frames(self, n_samples: int) -> int:
        return self.mel.n_frames(n_samples)

    def __call__(self, audio: Tensor) -> Tensor:
        """(S,) -> (T, F)"""
        return self.mel(audio)[0]


def mel_filters(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> Tensor:
    """(n_fft / 2 + 1, n_mels) triangles, equally wide on the mel scale; the bin at the Nyquist frequency has none.

    Raises:
        ValueError: the range of frequencies is none, or a triangle falls between two bins.
    """
    if n_mels < 1 or not 0 <= f_min < f_max <= sample_rate / 2:
        raise ValueError(
            f"{n_mels} mel filters from {f_min:g} to {f_max:g} Hz: at least one is wanted, between 0 and "
            f"{sample_rate / 2:g} Hz, half of the sampling rate"
        )
    edges = torch.linspace(_mel(f_min), _mel(f_max), n_mels + 2, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = torch.tensor([[_mel(sample_rate * i / n_fft)] for i in range(n_fft // 2)], dtype=torch.float64)
    filters = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
    empty = (filters.sum(dim=0) == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"n_mels={n_mels} is too much for {n_fft} points at {sample_rate} Hz: filter {empty[0]} lies between two "
            "frequencies; choose fewer filters or a longer window_ms"
        )
    return torch.cat([filters, torch.zeros(1, n_mels, dtype=torch.float64)]).float()


def _mel(hz: float) -> float:
    return 1127 * math.log1p(hz / 700)
