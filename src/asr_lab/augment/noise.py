"""Additive noise at a drawn signal-to-noise ratio."""

from torch import Generator, Tensor

from asr_lab.augment.colours import COLOURS
from asr_lab.augment.draws import below, check_range, uniform
from asr_lab.augment.folder import AudioFolder, opened
from asr_lab.augment.level import power
from asr_lab.augment.none import NoAugment


class Noise(NoAugment):
    """Adds noise from one of `sources`, equally likely: `white`, `pink`, `brown`, `babble`, or a folder of recordings.

    The signal-to-noise ratio is 10 log10(mean x^2 / mean n^2) over all samples of the utterance, pauses included, and
    uniform in dB between `min_snr_db` and `max_snr_db`. Where either is silent nothing is added.
    """

    on_audio = True

    def __init__(self, sources: list[str], min_snr_db: float, max_snr_db: float, sample_rate: int):
        check_range("snr_db", min_snr_db, max_snr_db)
        self.sources = opened(sources, COLOURS, sample_rate)
        self.min_snr_db, self.max_snr_db, self.sample_rate = min_snr_db, max_snr_db, sample_rate

    def audio(self, audio: Tensor, generator: Generator) -> Tensor:
        """(S,) -> (S,)

        Raises:
            DataError: the recording that was drawn cannot be read.
        """
        signal = power(audio)
        if not signal > 0:
            return audio
        source = self.sources[below(len(self.sources), generator)]
        ratio = 10 ** (uniform(self.min_snr_db, self.max_snr_db, generator) / 10)
        if isinstance(source, AudioFolder):
            noise = source.segment(len(audio), generator)
        else:
            noise = COLOURS[source](len(audio), self.sample_rate, generator)
        loudness = power(noise)
        return audio + noise * (signal / (loudness * ratio)) ** 0.5 if loudness > 0 else audio
