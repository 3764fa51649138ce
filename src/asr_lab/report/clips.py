"""Recordings inside a page: the beginning of each as FLAC in a data URI."""

import base64
import io

import numpy as np

from asr_lab.data import audio
from asr_lab.data.manifest import Utterance
from asr_lab.errors import DataError

CLIP_S = 10.0  # of a longer recording, so much is played
CLIPS_BYTES = 3_500_000  # of all clips together, as text in the page


def clip(u: Utterance, channel: int | str, room: int) -> tuple[str | None, float]:
    """(data URI of FLAC, its seconds) of the beginning of a recording, in at most `room` bytes before base64.

    None when the recording can no longer be read.
    """
    try:
        samples, rate = audio.read(
            u.audio, u.member, u.offset or 0.0, min(u.duration, CLIP_S), channel if u.channel is None else u.channel
        )
    except DataError:
        return None, 0.0
    encoded = _flac(samples, rate)
    while len(encoded) > room:
        samples = samples[: int(len(samples) * room / len(encoded) * 0.95)]
        encoded = _flac(samples, rate)
    return f"data:audio/flac;base64,{base64.b64encode(encoded).decode()}", len(samples) / rate


def _flac(samples: np.ndarray, rate: int) -> bytes:
    import soundfile

    encoded = io.BytesIO()
    soundfile.write(encoded, samples, rate, format="FLAC", subtype="PCM_16")
    return encoded.getvalue()
