"""Volume perturbation."""

from torch import Generator, Tensor

from asr_lab.augment.draws import check_range, uniform
from asr_lab.augment.none import NoAugment


class Volume(NoAugment):
    """Multiplies by 10^(g/20), g uniform between `min_gain_db` and `max_gain_db`, but by no more than brings the peak
    to full scale: nothing clips.
    """

    on_audio = True

    def __init__(self, min_gain_db: float, max_gain_db: float):
        check_range("gain_db", min_gain_db, max_gain_db)
        self.min_gain_db, self.max_gain_db = min_gain_db, max_gain_db

    def audio(self, audio: Tensor, generator: Generator) -> Tensor:
        """(S,) -> (S,)"""
        gain = 10 ** (uniform(self.min_gain_db, self.max_gain_db, generator) / 20)
        peak = audio.abs().max().item() if len(audio) else 0.0
        return audio * min(gain, 1 / peak) if peak > 0 else audio
