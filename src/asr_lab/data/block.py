"""One file of the feature cache: the arrays of a few hundred utterances behind each other, and what is known of them.

`KEY.bin` holds the arrays and then their moments; `KEY.json`, written after it, says how long each is and what the
checksum is: without it a block does not exist. The key is a hash of everything that the numbers depend on, the audio
files' sizes and times included, so a block is never out of date, only unused.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from asr_lab.data.manifest import Utterance
from asr_lab.errors import DataError
from asr_lab.files import write_atomic, write_json

SIZE = 256  # utterances of a block


class Arrays(NamedTuple):
    """What is kept of one utterance."""

    values: np.ndarray  # (T, F)
    moments: np.ndarray  # (2, F) float64: sums over frames of the values and of their squares, before any rounding


class Block:
    """The arrays of `utterances` at one speed, in a folder of the cache."""

    def __init__(self, folder: Path, identity: str, utterances: list[Utterance], speed: float, width: int, dtype: str):
        self.folder, self.utterances, self.speed, self.width = folder, utterances, speed, width
        self.dtype = np.dtype(dtype)
        self.key = _key(identity, utterances, speed, width, dtype)
        self.data_file, self.index_file = folder / f"{self.key}.bin", folder / f"{self.key}.json"
        self._values: np.ndarray | None = None

    def exists(self) -> bool:
        """Whole, as far as sizes tell; `open` compares checksums."""
        try:
            self._read_index()
            return self.data_file.stat().st_size == self._n_bytes
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def write(self, compute: Callable[[Utterance, float], Arrays]) -> None:
        """Compute every array and write both files.

        Raises:
            DataError: an audio file cannot be read.
            DiskFullError: no space; nothing half-written stays.
        """
        lengths, moments, checksum = [], [], 0

        def write_data(f: BinaryIO) -> None:
            nonlocal checksum
            for u in self.utterances:
                arrays = compute(u, self.speed)
                lengths.append(len(arrays.values))
                moments.append(arrays.moments)
                checksum = _append(f, arrays.values.astype(self.dtype), checksum)
            f.write(bytes(-f.tell() % 8))
            checksum = _append(f, np.asarray(moments, dtype=np.float64), checksum)

        write_atomic(self.data_file, write_data)
        write_json(self.index_file, {"lengths": lengths, "crc32": checksum, "bytes": self.data_file.stat().st_size})

    def open(self) -> "Block":
        """Map the file and compare its checksum.

        Raises:
            DataError: the file is not what was written; the cache then writes it again.
        """
        try:
            self._read_index()
            raw = np.asarray(np.memmap(self.data_file, dtype=np.uint8, mode="r"))  # a plain view is quicker to slice
            n_values = int(self._offsets[-1]) * self.width
            end = n_values * self.dtype.itemsize
            start = end + -end % 8
            checksum = zlib.crc32(raw[start:].data, zlib.crc32(raw[:end].data))
            if len(raw) != self._n_bytes or checksum != self._checksum:
                raise ValueError("checksum")
            self._values = raw[:end].view(self.dtype).reshape(-1, self.width)
            self._moments = raw[start:].view(np.float64).reshape(-1, 2, self.width)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.data_file}: damaged ({error})") from None
        return self

    @property
    def is_open(self) -> bool:
        return self._values is not None

    def values(self, row: int) -> np.ndarray:
        """(T, F) of one utterance, in the file."""
        assert self._values is not None
        return self._values[self._offsets[row] : self._offsets[row + 1]]

    def moments(self, row: int) -> np.ndarray:
        """(2, F) float64"""
        return self._moments[row]

    def n_frames(self, row: int) -> int:
        return int(self._offsets[row + 1] - self._offsets[row])

    def remove(self) -> None:
        for path in (self.index_file, self.data_file):
            path.unlink(missing_ok=True)

    def _read_index(self) -> None:
        index = json.loads(self.index_file.read_text())
        self._checksum, self._n_bytes = index["crc32"], index["bytes"]
        self._offsets = np.concatenate([[0], np.cumsum(np.asarray(index["lengths"], dtype=np.int64))])
        if len(self._offsets) != len(self.utterances) + 1:
            raise ValueError("lengths")


def _append(f: BinaryIO, array: np.ndarray, checksum: int) -> int:
    content = np.ascontiguousarray(array).tobytes()
    f.write(content)
    return zlib.crc32(content, checksum)


def _key(identity: str, utterances: Iterable[Utterance], speed: float, width: int, dtype: str) -> str:
    h = hashlib.sha256(f"{identity} {speed} {width} {dtype}".encode())
    for u in utterances:
        try:
            status = os.stat(u.audio)
        except OSError:
            raise DataError(f"missing file: {u.audio}; check the path or the root that it is relative to") from None
        part = (u.id, str(u.audio), u.member, u.offset, u.channel, u.duration if u.offset is not None else None)
        h.update(f"{part} {status.st_size} {status.st_mtime_ns}\n".encode())
    return h.hexdigest()[:20]
