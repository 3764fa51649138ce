"""Log power spectrogram."""

from collections.abc import Callable

import torch
from torch import Tensor

from asr_lab.frontend.cmvn import Cmvn
from asr_lab.frontend.frames import samples


class Spectrogram:
    """log(|STFT|^2 + floor) of Hann windows, frame t centred on sample t * hop, zeros beyond both ends.

    F = n_fft / 2 + 1 with n_fft the power of two that holds a window: 257 bins at 16 kHz and 25 ms.
    """

    has_frequency_axis = True

    def __init__(self, sample_rate: int, window_ms: float, hop_ms: float, floor: float, cmvn: Cmvn, head: Callable):
        window = samples(window_ms, sample_rate, "window_ms")
        self.hop = samples(hop_ms, sample_rate, "hop_ms")
        if not floor > 0:
            raise ValueError(f"floor keeps the logarithm of silence finite: it must be positive, {floor} came")
        self.window, self.floor = torch.hann_window(window), floor
        self.n_fft = max(2, 1 << (window - 1).bit_length())
        self.out_dim = self.n_fft // 2 + 1
        self.cmvn, self.head = cmvn, head

    def n_frames(self, n_samples: int) -> int:
        return 1 + n_samples // self.hop

    @torch.no_grad()
    def __call__(self, audio: Tensor) -> Tensor:
        """(S,) -> (T, F)"""
        spectrum = torch.stft(
            audio,
            self.n_fft,
            self.hop,
            len(self.window),
            self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return (spectrum.real.square() + spectrum.imag.square() + self.floor).log().T.contiguous()
