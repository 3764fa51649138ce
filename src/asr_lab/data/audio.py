"""Audio in (soundfile), as mono float32: whole files and segments, from folders and from tar shards.

libsndfile goes by what a file holds, not by its name: MP3 data in a file called .wav are read as MP3.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from asr_lab.data.manifest import Utterance
from asr_lab.data.tars import member_bytes
from asr_lab.errors import DataError

# Manifests round durations, and codecs pad: a difference below both bounds is no lie.
DURATION_SLACK_S = 0.05
DURATION_SLACK = 0.02
MIX = "mix"  # all channels averaged


class AudioInfo(NamedTuple):
    sample_rate: int
    n_samples: int
    n_channels: int


def probe(path: Path, member: str | None = None) -> AudioInfo:
    """Rate, length and channels from the header of a file, or of `member` inside the tar `path`.

    Raises:
        DataError: missing, empty, truncated or not audio; the message starts with the kind of problem and a colon.
    """
    return _probe(_source(path, member), _name(path, member))


def read(
    path: Path,
    member: str | None = None,
    offset: float | None = None,
    duration: float | None = None,
    channel: int | str = MIX,
) -> tuple[np.ndarray, int]:
    """(samples (S,) float32 in [-1, 1], sample rate) of a file, or of `duration` seconds from `offset` on.

    `channel` is one of the file's channels, from 0, or "mix" for their mean.

    Raises:
        DataError: as `probe`; a file whose data end before its header says; a segment or channel that it has not.
    """
    source, name = _source(path, member), _name(path, member)
    info = _probe(source, name)
    start, stop = 0, info.n_samples
    if offset is not None:
        start = round(offset * info.sample_rate)
        stop = info.n_samples if duration is None else start + round(duration * info.sample_rate)
        stop = min(stop, info.n_samples)  # how far it may overrun is for `duration_lie` to say
        if start >= stop:
            raise DataError(
                f"segment outside the file: {name} lasts {info.n_samples / info.sample_rate:.3f} s, the segment starts "
                f"at {offset:.3f}; correct the line"
            )
    _check_channel(channel, info, name)
    try:
        samples, rate = soundfile.read(_sound(source), start=start, stop=stop, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(f"truncated file: {name} breaks off ({_why(error)}); {_AGAIN}") from None
    if len(samples) < stop - start:
        raise DataError(f"truncated file: {name} has {start + len(samples)} of {info.n_samples} samples; {_AGAIN}")
    return _mono(samples, channel), rate


def blocks(path: Path, seconds: float, channel: int | str = MIX) -> Iterator[np.ndarray]:
    """The samples of a whole file in order, (S,) float32 as `read` gives them, in blocks of `seconds`.

    Raises:
        DataError: as `read`; where data end early, after the blocks that are there.
    """
    name = str(path)
    info = _probe(path, name)
    _check_channel(channel, info, name)
    n_read, wanted = 0, max(1, round(seconds * info.sample_rate))
    try:
        with soundfile.SoundFile(name) as f:
            while n_read < info.n_samples:
                samples = f.read(min(wanted, info.n_samples - n_read), dtype="float32", always_2d=True)
                if not len(samples):
                    break
                n_read += len(samples)
                yield _mono(samples, channel)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(f"truncated file: {name} breaks off ({_why(error)}); {_AGAIN}") from None
    if n_read < info.n_samples:
        raise DataError(f"truncated file: {name} has {n_read} of {info.n_samples} samples; {_AGAIN}")


def duration_lie(utterance: Utterance, info: AudioInfo) -> str | None:
    """What to say when the manifest's duration is not the file's, or a segment overruns it; None when all is well."""
    u, actual = utterance, info.n_samples / info.sample_rate
    slack = max(DURATION_SLACK_S, DURATION_SLACK * actual)
    if u.offset is not None:
        if u.offset + u.duration <= actual + slack and u.offset < actual:
            return None
        end = u.offset + u.duration
        return f"{u.audio} lasts {actual:.3f} s, the segment ends at {end:.3f}; correct offset or duration"
    if abs(actual - u.duration) <= slack:
        return None
    return f"{_name(u.audio, u.member)} lasts {actual:.3f} s, the manifest says {u.duration:.3f}; correct the line"


_AGAIN = "fetch it again or leave it out"


def _check_channel(channel: int | str, info: AudioInfo, name: str) -> None:
    if channel != MIX and not (isinstance(channel, int) and 0 <= channel < info.n_channels):
        raise DataError(
            f"channel not in the file: {name} has {info.n_channels}, number {channel} (from 0) is wanted; choose "
            "another one (in the line, as data.channel or --channel)"
        )


def _mono(samples: np.ndarray, channel: int | str) -> np.ndarray:
    """(S, C) -> (S,)"""
    return samples.mean(axis=1) if isinstance(channel, str) else np.ascontiguousarray(samples[:, channel])


def _source(path: Path, member: str | None) -> Path | bytes:
    return path if member is None else member_bytes(path, member)


def _sound(source: Path | bytes) -> str | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else str(source)


def _name(path: Path, member: str | None) -> str:
    return str(path) if member is None else f"{path}/{member}"


def _probe(source: Path | bytes, name: str) -> AudioInfo:
    if isinstance(source, bytes):
        size, head = len(source), source[:12]
    else:
        try:
            size = source.stat().st_size
            with open(source, "rb") as f:
                head = f.read(12)
        except FileNotFoundError:
            raise DataError(f"missing file: {name}; check the path or the root that it is relative to") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL or a lone surrogate in the path
            why = getattr(error, "strerror", None) or "no possible path"
            raise DataError(f"missing file: {name} cannot be read ({why}); check the path") from None
    if size == 0:
        raise DataError(f"empty file: {name} has 0 bytes; {_AGAIN}")
    try:
        info = soundfile.info(_sound(source))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(f"not audio: {name} ({_why(error)}); fetch it again or convert it") from None
    declared = _riff_bytes(head)
    if declared > size:
        raise DataError(f"truncated file: {name} has {size} of {declared} bytes; {_AGAIN}")
    if info.frames == 0:
        raise DataError(f"empty file: {name} has a header but no samples; {_AGAIN}")
    return AudioInfo(info.samplerate, info.frames, info.channels)


def _why(error: Exception) -> str:
    return getattr(error, "error_string", str(error)).strip(" .")


def _riff_bytes(head: bytes) -> int:
    """Size that a RIFF/WAVE header declares, 0 for other formats and for streamed files that leave it open."""
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return 0
    declared = int.from_bytes(head[4:8], "little") + 8
    return 0 if declared >= 2**32 - 8 else declared
