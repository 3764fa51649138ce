"""CMU AN4 (Acero 1990): its original layout, with NIST SPHERE files or headerless big-endian ones."""

import re
from functools import partial
from pathlib import Path

import numpy as np

from asr_lab.data.corpora.layout import holder, lines
from asr_lab.data.recordings import Recording
from asr_lab.errors import DataError

SAMPLE_RATE = 16_000  # of the headerless files
_LINE = re.compile(r"(?:<s>\s*)?(?P<text>.*?)(?:\s*</s>)?\s*\((?P<id>[^()]+)\)\s*")


def recordings(folders: list[Path]) -> list[Recording]:
    """What `etc/an4_{train,test}.fileids` list, with the texts of `etc/an4_{train,test}.transcription`.

    Raises:
        DataError: another layout; a listed recording without text or file.
    """
    home = holder(folders, "etc/an4_train.fileids", "AN4")
    return [r for split in ("train", "test") for r in _split(home, split)]


def _split(home: Path, split: str) -> list[Recording]:
    transcription = home / "etc" / f"an4_{split}.transcription"
    texts = {m["id"]: m["text"] for m in map(_LINE.fullmatch, lines(transcription)) if m}
    found = []
    for listed in lines(home / "etc" / f"an4_{split}.fileids"):
        path = home / "wav" / listed.strip()
        if path.name not in texts:
            raise DataError(f"{transcription}: has no text of {path.name}; fetch the corpus again")
        suffix = next((s for s in (".sph", ".wav", ".raw") if path.with_name(path.name + s).is_file()), None)
        if suffix is None:
            raise DataError(f"missing file: {path}.sph (or .raw, .wav); fetch the corpus again")
        file = path.with_name(path.name + suffix)
        raw = partial(read_raw, file) if suffix == ".raw" else None
        speaker = path.name.split("-")[1] if "-" in path.name else path.parent.name
        found.append(Recording(path.name, None if raw else file, texts[path.name], split, speaker, render=raw))
    return found


def read_raw(path: Path) -> tuple[np.ndarray, int]:
    """((S,) samples in [-1, 1], rate) of a headerless file of 16-bit big-endian samples."""
    content = path.read_bytes()
    if not content or len(content) % 2:
        raise DataError(f"truncated file: {path} has {len(content)} bytes, not whole samples; fetch the corpus again")
    return np.frombuffer(content, ">i2") / 32768, SAMPLE_RATE
