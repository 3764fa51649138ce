"""Synthetic noises: (n_samples, sample_rate, generator) -> (S,), with a level of their own."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Generator, Tensor
from torch.nn.functional import interpolate

# Below, a spectrum that falls with frequency is flat: otherwise its power would lie where nobody hears it.
AUDIBLE_HZ = 20.0
# Above, the long-term spectrum of speech falls (Byrne et al. 1994), here by 6 dB an octave.
SPEECH_HZ = 500.0
N_TALKERS = 6
SYLLABLES_PER_S = 4.0


def white(n_samples: int, sample_rate: int, generator: Generator) -> Tensor:
    """Equal power at all frequencies."""
    return torch.randn(n_samples, generator=generator)


def pink(n_samples: int, sample_rate: int, generator: Generator) -> Tensor:
    """Power as 1/f: 3 dB less an octave."""
    return _shaped(n_samples, sample_rate, lambda hz: hz.clamp(min=AUDIBLE_HZ).rsqrt(), generator)


def brown(n_samples: int, sample_rate: int, generator: Generator) -> Tensor:
    """Power as 1/f^2: 6 dB less an octave."""
    return _shaped(n_samples, sample_rate, lambda hz: 1 / hz.clamp(min=AUDIBLE_HZ), generator)


def babble(n_samples: int, sample_rate: int, generator: Generator) -> Tensor:
    """Like a few people who talk at once: noise with the spectrum of speech, its level that of several independent
    talkers whose loudness rises and falls with their syllables.

    A sum of Gaussian noises with the same spectrum and slow envelopes e_i is one noise with the envelope
    sqrt(sum e_i^2); so one is made.
    """
    carrier = _shaped(n_samples, sample_rate, lambda hz: 1 / hz.clamp(min=SPEECH_HZ), generator)
    n_levels = 2 + int(2 * SYLLABLES_PER_S * n_samples / sample_rate)
    levels = torch.rand(N_TALKERS, n_levels, generator=generator).square().sum(dim=0).sqrt()
    return carrier * interpolate(levels[None, None], n_samples, mode="linear", align_corners=True)[0, 0]


COLOURS: dict[str, Callable[[int, int, Generator], Tensor]] = {
    "white": white,
    "pink": pink,
    "brown": brown,
    "babble": babble,
}


def _shaped(n_samples: int, sample_rate: int, amplitude: Callable[[Tensor], Tensor], generator: Generator) -> Tensor:
    """Gaussian noise whose amplitude spectrum follows `amplitude` of the frequency, without a mean."""
    n_fft = next_fast_len(n_samples, real=True)
    hz = torch.fft.rfftfreq(n_fft, 1 / sample_rate)
    spectrum = torch.randn(len(hz), dtype=torch.complex64, generator=generator) * amplitude(hz)
    spectrum[0] = 0
    return torch.from_numpy(np.fft.irfft(spectrum.numpy(), n_fft)[:n_samples])  # see level.py
