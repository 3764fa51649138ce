"""What lies between a synthetic mouth and a file: level, noise, silence, resampling."""

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from asr_lab.data import espeak

if TYPE_CHECKING:
    import numpy as np


class Channel(NamedTuple):
    """What lies between a mouth and a file."""

    level_db: float  # RMS of the speech relative to full scale; less where a peak would clip
    snr_db: float  # speech over stationary white noise
    lead_s: float  # seconds of noise alone before the speech
    tail_s: float  # ... and after it
    noise_seed: int


def shortest(text: str) -> float:
    """Seconds that an utterance lasts at the least, with its silence: 50 ms a letter, and a blank between equal ones.

    The fastest voices would else leave CTC fewer encoder frames (40 ms, or 44 ms at 1.1 times the speed) than letters.
    """
    return 0.05 * (len(text) + sum(a == b for a, b in pairwise(text)))


def transmit(speech: "np.ndarray", sample_rate: int, channel: Channel, shortest_s: float) -> "np.ndarray":
    """int16 speech (S,) at eSpeak's rate, as a microphone would deliver it: int16 (S',) at `sample_rate`."""
    import numpy as np

    x = speech / 32768.0
    loud = np.flatnonzero(np.abs(x) > 0.005 * np.abs(x).max())
    x = x[loud[0] : loud[-1] + 1]
    lead, tail = round(channel.lead_s * espeak.SAMPLE_RATE), round(channel.tail_s * espeak.SAMPLE_RATE)
    tail = max(tail, round(shortest_s * espeak.SAMPLE_RATE) - lead - len(x))
    tail += -(lead + len(x) + tail) % (espeak.SAMPLE_RATE // math.gcd(espeak.SAMPLE_RATE, sample_rate))
    padded = np.pad(x, (lead, tail))  # to a length that is whole at both rates
    # Resampling by cutting (or extending) the spectrum: exact for a signal that is silent at both ends, and it spares
    # the import of scipy.signal, which takes longer than speaking a thousand utterances.
    n = len(padded) * sample_rate // espeak.SAMPLE_RATE
    y = np.fft.irfft(np.fft.rfft(padded)[: n // 2 + 1], n) * (n / len(padded))
    rms = np.sqrt(np.sum(y**2) / (len(x) * sample_rate / espeak.SAMPLE_RATE))
    gain = min(10 ** (channel.level_db / 20) / rms, 0.9 / np.abs(y).max())
    noise = np.random.default_rng(channel.noise_seed).normal(0.0, rms * 10 ** (-channel.snr_db / 20), n)
    return np.round(((y + noise) * gain).clip(-1, 1) * 32767).astype(np.int16)
