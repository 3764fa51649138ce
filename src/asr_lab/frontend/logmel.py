"""Log-mel filter-bank energies (torchaudio)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from asr_lab.frontend.cmvn import Cmvn


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
        if window_ms <= 0 or hop_ms <= 0:
            raise ValueError(f"frontend: window_ms and hop_ms must be positive, {window_ms} and {hop_ms} came")
        self.out_dim = n_mels
        self.hop = round(sample_rate * hop_ms / 1000)
        window = round(sample_rate * window_ms / 1000)
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
