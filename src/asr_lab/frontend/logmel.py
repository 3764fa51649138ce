"""Log-mel filter-bank energies (torchaudio)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from asr_lab.frontend.cmvn import Cmvn
from asr_lab.frontend.frames import samples


class LogMel(nn.Module):
    """log(mel power + floor) of Hann windows. One utterance at a time: no padding can enter."""

    has_frequency_axis = True

    def __init__(
        self,
        sample_rate: int,
        n_mels: int,
        window_ms: float,
        hop_ms: float,
        f_min: float,
        floor: float,
        cmvn: Cmvn,
        head: Callable,
    ):
        super().__init__()
        window = samples(window_ms, sample_rate, "window_ms")
        if n_mels < 1 or not floor > 0 or not 0 <= f_min < sample_rate / 2:
            raise ValueError(
                f"n_mels and floor must be positive and f_min below {sample_rate / 2:g} Hz, half of the sampling rate; "
                f"{n_mels}, {floor} and {f_min} came"
            )
        self.out_dim = n_mels
        self.hop = samples(hop_ms, sample_rate, "hop_ms")
        self.mel = MelSpectrogram(
            sample_rate=sample_rate,
            # At least 512 points: at 8 kHz a shorter transform leaves the lowest filters without a bin.
            n_fft=max(512, 1 << (window - 1).bit_length()),
            win_length=window,
            hop_length=self.hop,
            f_min=f_min,
            n_mels=n_mels,
            center=True,
            pad_mode="constant",  # reflection needs more samples than the shortest utterances have
        )
        self.floor = floor
        self.cmvn, self.head = cmvn, head

    def n_frames(self, n_samples: int) -> int:
        return 1 + n_samples // self.hop

    @torch.no_grad()
    def forward(self, audio: Tensor) -> Tensor:
        """(S,) -> (T, F)"""
        return (self.mel(audio) + self.floor).log().T.contiguous()
