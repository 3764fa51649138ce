"""From a file to features: decode, one rate, pad, pre-process, change the speed, compute features."""

import numpy as np
import torch
from torch import Tensor
from torchaudio.functional import resample

from asr_lab.data import audio, check
from asr_lab.data.corpus import Corpus
from asr_lab.data.manifest import Utterance
from asr_lab.errors import DataError
from asr_lab.frontend import Frontend
from asr_lab.preprocess import Preprocess


class Pipeline:
    """What is computed for an utterance at a speed, before anything random: so it can be computed once and kept."""

    def __init__(self, corpus: Corpus, preprocess: Preprocess, frontend: Frontend):
        self.corpus, self.preprocess, self.frontend = corpus, preprocess, frontend

    def audio(self, u: Utterance, speed: float = 1.0) -> Tensor:
        """(S,) float32 at the corpus's rate, pre-processed, played `speed` times as fast.

        Raises:
            DataError: the file cannot be read in full, or has another rate and `data.resample` is false.
        """
        samples = prepared(torch.from_numpy(load(u, self.corpus)), self._shortest, self.preprocess, u.id)
        if speed != 1.0:
            samples = resample(samples, round(speed * 100), 100)
        return samples

    def features(self, u: Utterance, speed: float = 1.0) -> Tensor:
        """(T, F) without normalisation."""
        return self.frontend(self.audio(u, speed))

    def n_samples(self, u: Utterance, speed: float = 1.0) -> int:
        """Length of `audio`, by the manifest's duration; an estimate where pre-processing cuts samples away."""
        rate = self.corpus.sample_rate
        return -(-round(max(u.duration * rate, self._shortest)) * 100 // round(speed * 100))

    @property
    def _shortest(self) -> int:
        return int(self.corpus.min_duration_s * self.corpus.sample_rate)


def load(u: Utterance, corpus: Corpus) -> np.ndarray:
    """(S,) float32 samples of an utterance at the corpus's sampling rate.

    Raises:
        DataError: as `Pipeline.audio`.
    """
    channel = corpus.channel if u.channel is None else u.channel
    samples, rate = audio.read(u.audio, u.member, u.offset, u.duration, channel)
    if rate != corpus.sample_rate:
        if not corpus.resample:
            raise DataError(str(check.audio_problem(u, corpus.sample_rate, decode=False)))
        samples = resample(torch.from_numpy(samples), rate, corpus.sample_rate).numpy()
    return samples


def prepared(samples: Tensor, shortest: int, preprocess: Preprocess, name: str) -> Tensor:
    """(S,) -> (S',): filled up with silence on both sides to `shortest` samples, then pre-processed.

    Raises:
        DataError: nothing is left.
    """
    samples = preprocess(_padded(samples, shortest))
    if len(samples) == 0:
        raise DataError(f"{name}: nothing is left of it after pre-processing; choose another preprocess")
    return samples


def _padded(samples: Tensor, shortest: int) -> Tensor:
    missing = shortest - len(samples)
    if missing <= 0:
        return samples
    return torch.nn.functional.pad(samples, (missing // 2, missing - missing // 2))
