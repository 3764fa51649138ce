"""Audio files in (soundfile), as mono float32."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from asr_lab.data.manifest import Utterance
from asr_lab.errors import DataError

# Manifests round durations, and codecs pad: a difference below both bounds is no lie.
DURATION_SLACK_S = 0.05
DURATION_SLACK = 0.02


class AudioInfo(NamedTuple):
    sample_rate: int
    n_samples: int


def probe(path: Path) -> AudioInfo:
    """Rate and length from the header.

    Raises:
        DataError: missing, empty, truncated or not audio; the message starts with the kind of problem and a colon.
    """
    try:
        size = path.stat().st_size
    except OSError:
        raise DataError(f"missing file: {path}; check the path or the root that it is relative to") from None
    if size == 0:
        raise DataError(f"empty file: {path} has 0 bytes; fetch it again or remove its line")
    try:
        info = soundfile.info(str(path))
    except soundfile.LibsndfileError as error:
        raise DataError(f"not audio: {path} ({error.error_string.strip(' .')}); fetch it again or convert it") from None
    declared = _riff_bytes(path)
    if declared > size:
        raise DataError(f"truncated file: {path} has {size} of {declared} bytes; fetch it again or remove its line")
    if info.frames == 0:
        raise DataError(f"empty file: {path} has a header but no samples; fetch it again or remove its line")
    return AudioInfo(info.samplerate, info.frames)


def read(path: Path) -> tuple[np.ndarray, int]:
    """(samples (S,) float32 in [-1, 1], sample rate); channels are averaged.

    Raises:
        DataError: as `probe`, and for a file whose data end before its header says.
    """
    info = probe(path)
    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise DataError(
            f"truncated file: {path} breaks off ({error.error_string.strip(' .')}); fetch it again or remove its line"
        ) from None
    if len(samples) < info.n_samples:
        raise DataError(
            f"truncated file: {path} has {len(samples)} of {info.n_samples} samples; fetch it again or remove its line"
        )
    return samples.mean(axis=1), rate


def duration_lie(utterance: Utterance, info: AudioInfo) -> str | None:
    """What to say when the manifest's duration is not the file's; None when it is."""
    actual = info.n_samples / info.sample_rate
    if abs(actual - utterance.duration) <= max(DURATION_SLACK_S, DURATION_SLACK * actual):
        return None
    return f"{utterance.audio} lasts {actual:.3f} s, the manifest says {utterance.duration:.3f}; correct the line"


def _riff_bytes(path: Path) -> int:
    """Size that a RIFF/WAVE header declares, 0 for other formats and for streamed files that leave it open."""
    with open(path, "rb") as f:
        head = f.read(12)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return 0
    declared = int.from_bytes(head[4:8], "little") + 8
    return 0 if declared >= 2**32 - 8 else declared
