"""A folder of recordings to draw from: noises, impulse responses of rooms."""

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Generator, Tensor
from torchaudio.functional import resample

from asr_lab.augment.draws import below
from asr_lab.errors import DataError

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".sph", ".w64")


class AudioFolder:
    """The audio files in a folder and those below it, listed once, opened when they are drawn.

    They are read at `sample_rate`; of several channels the first is taken. The list is sorted by path, so that a draw
    means the same file on every file system.
    """

    def __init__(self, folder: str, sample_rate: int):
        root = Path(folder).expanduser()
        found = [Path(parent, name) for parent, _, names in os.walk(root) for name in names if _is_audio(name)]
        if not found:
            raise ValueError(f"sources: {folder} has no audio files ({', '.join(s[1:] for s in SUFFIXES)})")
        self.files = sorted(found, key=lambda path: path.relative_to(root).as_posix())
        self.sample_rate = sample_rate

    def whole(self, generator: Generator) -> tuple[Tensor, Path]:
        """(S,) of one file, and which it was.

        Raises:
            DataError: the file cannot be read or has no samples.
        """
        path = self.files[below(len(self.files), generator)]
        length, rate = _length(path)
        return self._at_rate(_read(path, 0, length), rate), path

    def segment(self, n_samples: int, generator: Generator) -> Tensor:
        """(n_samples,) from a random place in one file; a shorter one goes round, from a random place too.

        Raises:
            DataError: as `whole`.
        """
        path = self.files[below(len(self.files), generator)]
        length, rate = _length(path)
        wanted = -(-n_samples * rate // self.sample_rate)
        if length > wanted:
            samples = _read(path, below(length - wanted + 1, generator), wanted)
        else:
            samples = np.resize(np.roll(_read(path, 0, length), below(length, generator)), wanted)
        return self._at_rate(samples, rate)[:n_samples]

    def _at_rate(self, samples: np.ndarray, rate: int) -> Tensor:
        return resample(torch.from_numpy(samples), rate, self.sample_rate)


def opened(sources: list[str], known: Collection[str], sample_rate: int) -> list[str | AudioFolder]:
    """The sources of a part, in their order: names that it knows, and folders.

    Raises:
        ValueError: not a list, neither a name nor a folder, a folder without audio.
    """
    names = ", ".join(known)
    if not isinstance(sources, list) or not sources or not all(isinstance(s, str) for s in sources):
        raise ValueError(f"sources is a list of {names} or folders of recordings, {sources!r} came")
    for source in sources:
        if source not in known and not Path(source).expanduser().is_dir():
            raise ValueError(f"sources: {source} is neither one of {names} nor a folder; correct the name or the path")
    return [s if s in known else AudioFolder(s, sample_rate) for s in sources]


def _is_audio(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _length(path: Path) -> tuple[int, int]:
    try:
        info = soundfile.info(str(path))
    except RuntimeError as error:
        raise _broken(path, error) from None
    if info.frames == 0:
        raise DataError(f"{path} has no samples; remove it, or replace it")
    return info.frames, info.samplerate


def _read(path: Path, start: int, n_samples: int) -> np.ndarray:
    """(n_samples,) float32"""
    try:
        samples, _ = soundfile.read(str(path), frames=n_samples, start=start, dtype="float32", always_2d=True)
    except RuntimeError as error:
        raise _broken(path, error) from None
    if len(samples) < n_samples:
        raise DataError(f"{path} breaks off after {start + len(samples)} samples; remove it, or replace it")
    if not np.isfinite(samples).all():
        raise DataError(f"{path} has samples that are not finite numbers; remove it, or replace it")
    return np.ascontiguousarray(samples[:, 0])


def _broken(path: Path, error: Exception) -> DataError:
    why = getattr(error, "error_string", str(error)).strip(" .")
    return DataError(f"{path} cannot be read as audio ({why}); remove it, or replace it")
