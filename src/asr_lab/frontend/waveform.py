"""Raw audio, for a head that learns its own filters."""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import pad

from asr_lab.frontend.cmvn import Cmvn
from asr_lab.frontend.frames import samples


class Waveform:
    """Samples in rows of `frame_ms`, without overlap; the last row is filled up with zeros. T = ceil(S / F)."""

    has_frequency_axis = False

    def __init__(self, sample_rate: int, frame_ms: float, cmvn: Cmvn, head: Callable):
        self.out_dim = samples(frame_ms, sample_rate, "frame_ms")
        self.cmvn, self.head = cmvn, head

    def n_frames(self, n_samples: int) -> int:
        return max(1, -(-n_samples // self.out_dim))

    def __call__(self, audio: Tensor) -> Tensor:
        """(S,) -> (T, F)"""
        n_frames = self.n_frames(len(audio))
        return pad(audio, (0, n_frames * self.out_dim - len(audio))).view(n_frames, self.out_dim)
