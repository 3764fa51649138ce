"""What one recording's samples tell: level, clipping, silence, noise."""

import hashlib
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from asr_lab.data import audio
from asr_lab.data.check import audio_problem
from asr_lab.data.manifest import Problem, Utterance
from asr_lab.errors import DataError

FLOOR_DB = -120.0  # levels below it, and digital silence, are given as this
FRAME_S = 0.01
LONG_S = 0.1  # noise is estimated from at least so much silence
# Silence: less than so far above the noise, but between these two distances below the loud frames.
ABOVE_NOISE_DB, NEVER_BELOW_DB, ALWAYS_BELOW_DB = 6.0, -40.0, -15.0
QUIET_DB = -80.0  # silent whatever the rest of the recording is like
FULL_SCALE = 0.999
AUDIBLE = 0.1  # a peak below this is no clipping, however flat
RUN = 3
_FEW = 200  # utterances for which starting processes takes longer than measuring


class Signal(NamedTuple):
    """Measurements of one utterance; shares lie in [0, 1], levels are dB of full scale (a full-scale sine: -3 RMS)."""

    sample_rate: int
    n_channels: int
    seconds: float
    peak_db: float
    rms_db: float
    dc: float  # mean of the samples, signed
    clipped: float  # share of samples in runs of clipped ones
    clipped_runs: int
    leading_s: float  # silence before the first sound; the whole length when there is none
    trailing_s: float  # ... after the last one
    silent: float  # share of silent frames
    active_s: float  # seconds that are not silent
    snr_db: float | None  # None: too little silence to tell
    digest: str  # of the samples


class Heard(NamedTuple):
    """An utterance whose samples were measured."""

    utterance: Utterance
    signal: Signal


class Look(NamedTuple):
    """What came of one utterance: a signal, a problem, or both (a duration that lies can still be measured)."""

    signal: Signal | None
    problem: Problem | None


def measure(samples: np.ndarray, sample_rate: int, n_channels: int = 1) -> Signal:
    """Measurements of `samples` (S,), S >= 1, float in [-1, 1].

    Silence and noise go by the power of 10 ms frames, smoothed over three, without the DC offset. The noise is the
    10th percentile of the frames' levels and the loud frames the 95th. A frame is silent when it is less than 6 dB
    above the noise; this threshold is held between 40 and 15 dB below the loud frames, and anything below -80 dB is
    silent. SNR = 10 log10((P_active - P_silent) / P_silent), from the mean powers of both kinds of frames.

    A run of clipped samples is three or more in a row at full scale, or exactly at the recording's own highest or
    lowest value (amplitude >= 0.1): clipping before a change of level leaves flat tops, too.
    """
    peak = float(np.abs(samples).max())
    dc = float(samples.mean(dtype=np.float64))
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    n_clipped, n_runs = clipped_runs(samples)
    frames = _frame_powers(samples - dc, sample_rate)
    active = frames >= _silence_threshold(frames)
    sound = np.flatnonzero(active)
    frame_s = len(samples) / sample_rate / len(frames)
    leading, trailing = (sound[0], len(frames) - 1 - sound[-1]) if len(sound) else (len(frames), len(frames))
    return Signal(
        sample_rate=sample_rate,
        n_channels=n_channels,
        seconds=len(samples) / sample_rate,
        peak_db=_db(peak**2),
        rms_db=_db(power),
        dc=dc,
        clipped=n_clipped / len(samples),
        clipped_runs=n_runs,
        leading_s=float(leading) * frame_s,
        trailing_s=float(trailing) * frame_s,
        silent=1 - len(sound) / len(frames),
        active_s=len(sound) * frame_s,
        snr_db=_snr_db(frames, active, frame_s),
        digest=hashlib.blake2b(samples.tobytes(), digest_size=12).hexdigest(),
    )


def clipped_runs(samples: np.ndarray) -> tuple[int, int]:
    """(samples in runs of clipped ones, number of runs) of (S,); see `measure`."""
    at_limit = np.zeros(len(samples) + 2, dtype=np.int8)
    for side in (samples, -samples):
        limit = min(float(side.max()), FULL_SCALE)
        if limit >= AUDIBLE:
            at_limit[1:-1] |= side >= limit
    edges = np.flatnonzero(np.diff(at_limit))
    lengths = edges[1::2] - edges[::2]
    long = lengths[lengths >= RUN]
    return int(long.sum()), len(long)


def look(u: Utterance, sample_rate: int | None = None, channel: int | str = audio.MIX) -> Look:
    """Measurements of an utterance's audio; `sample_rate` and `channel` are those that the corpus wants."""
    problem = audio_problem(u, sample_rate, decode=False)
    try:
        n_channels = audio.probe(u.audio, u.member).n_channels
        samples, rate = audio.read(u.audio, u.member, u.offset, u.duration, channel if u.channel is None else u.channel)
    except DataError as error:
        kind, _, detail = str(error).partition(": ")
        return Look(None, problem or Problem(kind, u.id, detail))
    if not np.isfinite(samples).all():
        return Look(None, Problem("samples that are no numbers", u.id, f"{u.audio} holds NaN or infinity; convert it"))
    return Look(measure(samples, rate, n_channels), problem)


def look_at_all(
    utterances: Iterable[Utterance], sample_rate: int | None, channel: int | str, n_workers: int
) -> Iterator[Look]:
    """`look` at every utterance, in order, by `n_workers` processes."""
    utterances = list(utterances)
    one = partial(look, sample_rate=sample_rate, channel=channel)
    if n_workers == 1 or len(utterances) < _FEW:
        yield from map(one, utterances)
        return
    # Fresh processes: a fork of one that has threads (PyTorch's, a progress bar's) can hang.
    with ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(one, utterances, chunksize=min(64, len(utterances) // n_workers))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _frame_powers(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """(T,) mean power of 10 ms frames, the rest of a frame going to the last one, smoothed over three frames."""
    size = max(1, round(sample_rate * FRAME_S))
    starts = np.arange(max(1, len(samples) // size)) * size
    sums = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
    powers = np.pad(sums / np.diff(starts, append=len(samples)), 1, mode="edge")
    return (powers[:-2] + powers[1:-1] + powers[2:]) / 3


def _silence_threshold(frames: np.ndarray) -> float:
    """Power below which a frame is silent."""
    noise, loud = (_db(p) for p in np.percentile(frames, [10, 95]))
    relative = min(max(noise + ABOVE_NOISE_DB, loud + NEVER_BELOW_DB), loud + ALWAYS_BELOW_DB)
    return 10 ** (max(relative, QUIET_DB) / 10)


def _snr_db(frames: np.ndarray, active: np.ndarray, frame_s: float) -> float | None:
    n_silent = len(frames) - int(active.sum())
    if n_silent in (0, len(frames)) or n_silent * frame_s < LONG_S:
        return None
    noise = max(float(frames[~active].mean()), 10 ** (FLOOR_DB / 10))
    return _db((float(frames[active].mean()) - noise) / noise)


def _db(power: float) -> float:
    return 10 * float(np.log10(max(power, 10 ** (FLOOR_DB / 10))))
