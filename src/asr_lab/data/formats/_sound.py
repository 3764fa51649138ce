"""The audio of an utterance as a file of its own: the original's bytes where it is a whole file, else cut from it."""

import io
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import soundfile

from asr_lab.data import audio
from asr_lab.data.formats._writing import tracked
from asr_lab.data.manifest import Utterance
from asr_lab.data.tars import member_bytes
from asr_lab.errors import DataError

# libsndfile's names of the formats that every reader of shards knows; others are converted.
EXTENSIONS = {"WAV": "wav", "WAVEX": "wav", "FLAC": "flac", "OGG": "ogg", "MPEG": "mp3", "MP3": "mp3"}
# Kinds of samples that FLAC keeps as they are.
FLAC_KINDS = {"PCM_S8": "PCM_S8", "PCM_U8": "PCM_S8", "PCM_16": "PCM_16", "PCM_24": "PCM_24"}
AHEAD = 32  # files read ahead by the threads: what is held in memory


class Sound(NamedTuple):
    extension: str
    content: bytes
    seconds: float


def content(u: Utterance) -> Sound:
    """Bytes of a file that holds this utterance and nothing else.

    A whole file of a usual format is copied. A segment, a chosen channel, or another format becomes FLAC of the same
    samples, or WAV where FLAC cannot hold them.

    Raises:
        DataError: the file cannot be read.
    """
    info = audio.probe(u.audio, u.member)
    original = u.audio.read_bytes() if u.member is None else member_bytes(u.audio, u.member)
    name = f"{u.audio}/{u.member}" if u.member else str(u.audio)
    try:
        with soundfile.SoundFile(io.BytesIO(original)) as f:
            if u.offset is None and u.channel is None and f.format in EXTENSIONS:
                return Sound(EXTENSIONS[f.format], original, u.duration)
            start = 0 if u.offset is None else round(u.offset * info.sample_rate)
            n = info.n_samples - start if u.offset is None else round(u.duration * info.sample_rate)
            n = min(n, info.n_samples - start)
            if n <= 0 or (u.channel is not None and u.channel >= f.channels):
                raise DataError(f"{u.id}: {name} has no such segment or channel; correct the line")
            kind = FLAC_KINDS.get(f.subtype) if f.channels <= 8 else None
            f.seek(start)
            samples = f.read(n, dtype="int32" if kind or f.subtype == "PCM_32" else "float32", always_2d=True)
            written = ("FLAC", kind) if kind else ("WAV", "PCM_32" if f.subtype == "PCM_32" else "FLOAT")
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(f"truncated file: {name} breaks off ({error}); fetch it again or remove its line") from None
    if len(samples) < n:
        raise DataError(f"truncated file: {name} has {start + len(samples)} of {start + n} samples; fetch it again")
    if u.channel is not None:
        samples = samples[:, [u.channel]]
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, info.sample_rate, format=written[0], subtype=written[1])
    return Sound(written[0].lower(), encoded.getvalue(), round(n / info.sample_rate, 6))


def each_content(utterances: list[Utterance]) -> Iterator[Sound]:
    """`content` of each, in order, by a few threads and not far ahead of what is asked for."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        chunks = (pool.map(content, utterances[i : i + AHEAD]) for i in range(0, len(utterances), AHEAD))
        yield from tracked((sound for chunk in chunks for sound in chunk), "copying audio", len(utterances))


def file_key(name: str) -> str:
    """A name of letters, digits, "_" and "-" alone, no sign first: fit for a file, and for a key of WebDataset."""
    key = re.sub(r"[^\w-]", "_", name)[-60:]  # the end tells more than the beginning
    return f"u{key}" if key.startswith(("_", "-")) else key  # "__" marks notes, "-" options


def file_keys(utterances: Iterable[Utterance]) -> Iterator[str]:
    """`file_key` of the ids, with numbers where it would be the same."""
    taken: set[str] = set()
    for u in utterances:
        stem = key = file_key(u.id)
        number = 1
        while key.casefold() in taken:  # folders on some systems do not tell A from a
            number += 1
            key = f"{stem}_{number}"
        taken.add(key.casefold())
        yield key
