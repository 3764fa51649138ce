"""From what a corpus says of its recordings to the lines of a manifest: files looked at or written, in processes."""

import io
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from asr_lab.data import audio
from asr_lab.data.manifest import read_manifest
from asr_lab.data.processes import spread
from asr_lab.data.progress import progress_bar
from asr_lab.errors import DataError

PROBED_AT_ONCE = 5000  # takes a little longer than a process to start
WRITTEN_AT_ONCE = 100


class Recording(NamedTuple):
    """One utterance of a corpus, before its file has been looked at."""

    id: str
    audio: Path | None  # None: the samples come from `render`
    text: str
    split: str | None
    speaker: str | None = None
    offset: float | None = None  # seconds; None: the whole file
    duration: float | None = None  # seconds, of a segment
    # Picklable: gives ((S,) float samples in [-1, 1], sample rate); they are written as FLAC beside the manifest.
    render: Callable[[], tuple[np.ndarray, int]] | None = None


def rows(recordings: Sequence[Recording], home: Path, root: Path, n_workers: int, progress: bool) -> list[dict]:
    """Lines of the manifest that will lie in `home`. Files under `root` are named relative to it, others in full.

    Raises:
        DataError: a file is missing, empty, cut or not audio.
    """
    written = any(r.render for r in recordings)
    found: list[dict] = []
    label = f"{'writing' if written else 'looking at'} the audio of {home.name}"
    with progress_bar(label, len(recordings), progress) as show:
        work = partial(_rows, home=home, root=root)
        for some in spread(work, recordings, n_workers, WRITTEN_AT_ONCE if written else PROBED_AT_ONCE):
            found += some
            show(len(found))
    return found


def recordings_of(manifest: Path) -> list[Recording]:
    """What a manifest that somebody made already says.

    Raises:
        DataError: it cannot be read, or a line is wrong.
    """
    utterances = read_manifest(manifest)
    if any(u.member or u.channel is not None for u in utterances):
        raise DataError(f"{manifest}: has channels or tars; train with data=manifest data.manifest={manifest} instead")
    return [
        Recording(u.id, u.audio, u.text, u.split, u.speaker, u.offset, None if u.offset is None else u.duration)
        for u in utterances
    ]


def write_flac(path: Path, samples: np.ndarray, sample_rate: int) -> int:
    """(S,) samples in [-1, 1] as 16-bit FLAC; their number."""
    pcm = np.round(np.clip(samples, -1, 32767 / 32768) * 32768).astype(np.int16)
    encoded = io.BytesIO()  # written by Python, which says so when the disk is full; libsndfile does not
    soundfile.write(encoded, pcm, sample_rate, format="FLAC", subtype="PCM_16")
    try:
        path.write_bytes(encoded.getvalue())
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.getvalue())
    return len(pcm)


def _rows(recordings: Sequence[Recording], home: Path, root: Path) -> list[dict]:
    return [_row(r, home, root) for r in recordings]


def _row(r: Recording, home: Path, root: Path) -> dict[str, Any]:
    if r.render:
        samples, rate = r.render()
        path = home / "audio" / f"{r.id}.flac"
        duration = write_flac(path, samples, rate) / rate
    else:
        assert r.audio is not None
        path, info = r.audio, audio.probe(r.audio)
        rate, duration = info.sample_rate, r.duration or info.n_samples / info.sample_rate
    name = os.path.relpath(path, home) if path.is_relative_to(root) else str(path.absolute())
    row = {"id": r.id, "audio_filepath": Path(name).as_posix(), "duration": round(duration, 4), "text": r.text}
    others = {"speaker": r.speaker, "split": r.split, "sample_rate": rate, "offset": r.offset}
    return row | {key: value for key, value in others.items() if value is not None}
