"""Recordings of any length in segments that a model can take: cut at pauses while they are read."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from asr_lab.data import audio
from asr_lab.errors import DataError

BLOCK_S = 10.0  # read from a file at once
FRAME_S = 0.01
N_STEP = 10  # frames that are looked at together
SHORTEST_PAUSE_S = 0.2  # what is shorter may be the closure of a stop
PADDING_S = 0.2  # silence that a segment keeps on each side
# Silence: less than so far above the noise, but between these two distances below the loudest frames.
ABOVE_NOISE_DB, NEVER_BELOW_DB, ALWAYS_BELOW_DB = 6.0, -45.0, -20.0
FLOOR_DB, QUIET_DB = -120.0, -80.0  # what a level is at the least; what is silent whatever the rest is like
NOISE_SHARE, LOUD_SHARE = 0.1, 0.998  # quantiles of the levels
HALF_LIFE_S = 60.0  # so soon the levels of the past count half


class Segment(NamedTuple):
    """A piece of a recording."""

    start: float  # seconds from the beginning of the recording
    samples: np.ndarray  # (S,) float32
    sample_rate: int

    @property
    def end(self) -> float:
        return self.start + len(self.samples) / self.sample_rate


class Recording(NamedTuple):
    """A file, whole where it lasts at most `max_s` seconds, else cut at its longest pauses."""

    path: Path
    channel: int | str
    max_s: float

    is_live = False

    @property
    def name(self) -> str:
        return str(self.path)

    def segments(self) -> Iterator[Segment]:
        """Read block by block, in order.

        Raises:
            DataError: missing, empty, truncated (after the segments that are there), not audio, no such channel.
        """
        info = audio.probe(self.path)
        if info.n_samples <= self.max_s * info.sample_rate:
            samples, rate = audio.read(self.path, channel=self.channel)
            yield Segment(0.0, _numbers(samples, self.name), rate)
            return
        blocks = (_numbers(b, self.name) for b in audio.blocks(self.path, BLOCK_S, self.channel))
        yield from _cut(blocks, Cutter(info.sample_rate, self.max_s, None))


class Pcm(NamedTuple):
    """A stream of raw 16-bit little-endian mono samples, cut wherever a pause of `pause_s` seconds has come."""

    stream: BinaryIO
    sample_rate: int
    max_s: float
    pause_s: float

    is_live = True
    name = "-"

    def segments(self) -> Iterator[Segment]:
        """As they come; each may be read once.

        Raises:
            DataError: empty, a WAV file, or an odd number of bytes (after the segments that are there).
        """
        yield from _cut(_decoded(self.stream), Cutter(self.sample_rate, self.max_s, self.pause_s))


def _numbers(samples: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(samples).all():
        raise DataError(f"samples that are no numbers: {name} holds NaN or infinity; convert it")
    return samples


def _decoded(stream: BinaryIO) -> Iterator[np.ndarray]:
    rest, is_first = b"", True
    while data := _there(stream):
        data = rest + data
        if is_first and data[:4] == b"RIFF":
            raise DataError("standard input: a WAV file came, raw 16-bit samples are wanted; give the file's name")
        is_first, whole = False, len(data) // 2 * 2
        yield np.frombuffer(data[:whole], "<i2").astype(np.float32) / 32768
        rest = data[whole:]
    if is_first:
        raise DataError("standard input: it is empty; raw 16-bit little-endian mono samples are wanted")
    if rest:
        raise DataError("standard input: it ends within a sample; are these 16-bit samples?")


def _there(stream: BinaryIO) -> bytes:
    """What has come, without waiting for more; nothing at the end, to which Ctrl-C brings a recording too."""
    try:
        return getattr(stream, "read1", stream.read)(1 << 16)
    except KeyboardInterrupt:
        return b""


def _cut(blocks: Iterable[np.ndarray], cutter: "Cutter") -> Iterator[Segment]:
    """What was read before a mistake is told first."""
    mistake = None
    try:
        for block in blocks:
            yield from cutter.feed(block)
    except DataError as error:
        mistake = error
    yield from cutter.end()
    if mistake:
        raise mistake


class Cutter:
    """Segments of at most `max_s` seconds out of a stream of samples, in bounded memory, however the blocks fall.

    When `max_s` seconds are there, the cut is in the middle of the longest pause of their second half, else of the
    longest pause; where there is none of 0.2 s, of the longest shorter one in the second half; where everything is
    sound, at the quietest place of that half. With `pause_s`, a pause so long ends a segment at once. Silence at both
    ends is left out but for 0.2 s, and so is a segment of nothing but silence.

    Silence goes by the power of 10 ms frames without their mean, smoothed over three: less than 6 dB above the noise,
    which is the 10th percentile of the levels so far, the past fading by half in a minute. The threshold is held
    between 45 and 20 dB below the loudest frames.
    """

    def __init__(self, sample_rate: int, max_s: float, pause_s: float | None):
        self.sample_rate = sample_rate
        self.frame = max(1, round(sample_rate * FRAME_S))
        self.step = N_STEP * self.frame
        n_frames = int(max_s * sample_rate) // self.frame
        if n_frames < 2 * N_STEP:
            raise ValueError(f"segments of at most {max_s} s are too short to be cut; 1 s is little already")
        self.padding, self.shortest = (self._frames(s) for s in (PADDING_S, SHORTEST_PAUSE_S))
        self.pause = None if pause_s is None else max(self._frames(pause_s), self.padding + 1)
        self.start = 0  # sample of the recording with which the buffer begins
        self.buffer, self.n_samples = np.zeros(n_frames * self.frame, dtype=np.float32), 0
        self.powers, self.n_frames = np.zeros(n_frames), 0
        self.rest = np.zeros(0, dtype=np.float32)  # less than a step
        self.levels = np.zeros(round(-FLOOR_DB) + 1)  # how often each dB came, fading
        self.fading = 0.5 ** (N_STEP * FRAME_S / HALF_LIFE_S)

    def feed(self, samples: np.ndarray) -> Iterator[Segment]:
        """The segments that are complete with these further samples (S,)."""
        samples = np.concatenate([self.rest, samples])
        whole = len(samples) // self.step * self.step
        self.rest = samples[whole:]
        for i in range(0, whole, self.step):
            yield from self._add(samples[i : i + self.step])

    def end(self) -> Iterator[Segment]:
        """What is left when nothing more comes."""
        rest, self.rest = self.rest, self.rest[:0]
        if len(rest):
            yield from self._add(rest)
        if self.n_samples:
            yield from self._take(self.n_frames, self._silent())

    def _frames(self, seconds: float) -> int:
        return round(seconds * self.sample_rate / self.frame)

    def _add(self, samples: np.ndarray) -> Iterator[Segment]:
        powers = self._powers(samples)
        if self.n_frames + len(powers) > len(self.powers):
            silent = self._silent()
            yield from self._take(self._place(silent), silent)
        self.buffer[self.n_samples : self.n_samples + len(samples)] = samples
        self.powers[self.n_frames : self.n_frames + len(powers)] = powers
        self.n_samples, self.n_frames = self.n_samples + len(samples), self.n_frames + len(powers)
        bins = np.round(_db(powers) - FLOOR_DB).astype(int).clip(0, len(self.levels) - 1)
        self.levels = self.fading * self.levels + np.bincount(bins, minlength=len(self.levels))
        if self.pause is not None:
            silent = self._silent()
            sound = np.flatnonzero(~silent)
            last = sound[-1] if len(sound) else -1
            if self.n_frames - 1 - last >= self.pause:
                yield from self._take(self.n_frames - self.padding, silent)

    def _powers(self, samples: np.ndarray) -> np.ndarray:
        """(S,) -> (T,); the last frame may be shorter"""
        power = np.square(samples - samples.mean(dtype=np.float64))
        starts = np.arange(0, len(samples), self.frame)
        return np.add.reduceat(power, starts) / np.diff(starts, append=len(samples))

    def _smooth(self) -> np.ndarray:
        padded = np.pad(self.powers[: self.n_frames], 1, mode="edge")
        return (padded[:-2] + padded[1:-1] + padded[2:]) / 3

    def _silent(self) -> np.ndarray:
        """(T,) which frames of the buffer are silent, by all that was heard"""
        reached = np.cumsum(self.levels)
        noise, loud = np.searchsorted(reached, reached[-1] * np.array([NOISE_SHARE, LOUD_SHARE])) + FLOOR_DB
        threshold = min(max(noise + ABOVE_NOISE_DB, loud + NEVER_BELOW_DB), loud + ALWAYS_BELOW_DB)
        return _db(self._smooth()) < max(threshold, QUIET_DB)

    def _place(self, silent: np.ndarray) -> int:
        """The frame before which a full buffer is cut, at least 1."""
        half = self.n_frames // 2
        edges = np.flatnonzero(np.diff(silent, prepend=False, append=False))
        starts, ends = edges[::2], edges[1::2]
        inner, late = starts > 0, ends > half
        long = ends - starts >= self.shortest
        for pauses in (inner & late & long, inner & long, inner & late):
            if pauses.any():
                i = np.argmax((ends - starts) * pauses)
                return int(starts[i] + ends[i]) // 2
        return half + int(np.argmin(self._smooth()[half:]))

    def _take(self, n_frames: int, silent: np.ndarray) -> Iterator[Segment]:
        """Take frames from the front of the buffer; what is not silent of them is a segment."""
        n_samples = min(n_frames * self.frame, self.n_samples)
        sound = np.flatnonzero(~silent[:n_frames])
        if len(sound):
            first = max(0, sound[0] - self.padding) * self.frame
            last = min((sound[-1] + 1 + self.padding) * self.frame, n_samples)
            yield Segment((self.start + first) / self.sample_rate, self.buffer[first:last].copy(), self.sample_rate)
        self.start += n_samples
        self.n_samples, self.n_frames = self.n_samples - n_samples, self.n_frames - n_frames
        self.buffer[: self.n_samples] = self.buffer[n_samples : n_samples + self.n_samples].copy()
        self.powers[: self.n_frames] = self.powers[n_frames : n_frames + self.n_frames].copy()


def _db(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10)))
