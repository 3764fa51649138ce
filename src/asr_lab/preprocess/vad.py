"""Trimming of silence by energy."""

import torch
from torch import Tensor


class EnergyVad:
    """Leading and trailing silence is cut, and inner pauses too with `cut_pauses`.

    A frame is silent when its level is more than `threshold_db` below the loudest frame's. `padding_ms` around the
    other frames is kept, so a pause that is cut leaves the padding of both sides. Levels are those of the recording
    without its mean. A recording with no frame above `silence_dbfs` is kept whole.
    """

    keeps_length = False

    def __init__(
        self,
        sample_rate: int,
        frame_ms: float,
        threshold_db: float,
        silence_dbfs: float,
        padding_ms: float,
        cut_pauses: bool,
    ):
        if not 1 <= sample_rate * frame_ms / 1000 < 1e9:
            raise ValueError(f"frame_ms={frame_ms} is not a length of at least one sample at {sample_rate} Hz")
        if not threshold_db > 0 or not 0 <= padding_ms < 1e6:
            raise ValueError(
                f"threshold_db must be positive and padding_ms not negative, {threshold_db} and {padding_ms} came"
            )
        self.frame = round(sample_rate * frame_ms / 1000)
        self.padding = round(sample_rate * padding_ms / 1000)
        self.threshold_db, self.silence_dbfs, self.cut_pauses = threshold_db, silence_dbfs, cut_pauses

    def __call__(self, audio: Tensor) -> Tensor:
        """(S,) -> (S',), S' <= S, never 0"""
        levels = self._levels(audio)
        loudest = levels.max()
        if not loudest > self.silence_dbfs:
            return audio
        loud = (levels > loudest - self.threshold_db).nonzero().flatten()
        first = (loud * self.frame - self.padding).clamp(min=0)
        last = ((loud + 1) * self.frame + self.padding).clamp(max=len(audio))
        if not self.cut_pauses:
            return audio[first[0] : last[-1]]
        change = torch.zeros(len(audio) + 1, dtype=torch.long)  # of the number of spans that a sample lies in
        change.index_add_(0, first, torch.ones_like(first))
        change.index_add_(0, last, -torch.ones_like(last))
        return audio[change.cumsum(dim=0)[:-1] > 0]

    def _levels(self, audio: Tensor) -> Tensor:
        """(S,) -> (T,) dB of full scale; the last frame may be shorter"""
        power = (audio - audio.mean()).double().square()
        missing = -len(power) % self.frame
        sums = torch.nn.functional.pad(power, (0, missing)).view(-1, self.frame).sum(dim=1)
        sizes = torch.full_like(sums, self.frame)
        sizes[-1] -= missing
        return 10 * (sums / sizes).clamp(min=1e-20).log10()
