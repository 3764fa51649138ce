"""A run's files as they grow, read while another process writes them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from asr_lab.errors import AsrLabError
from asr_lab.files import read_jsonl
from asr_lab.run import Run
from asr_lab.tracking import Utterance

Row = tuple[int, dict[str, float]]


class Rows:
    """Rows of metrics.jsonl, all of a step as one. A step is given when the next one has begun: then it is complete,
    and a place that takes each step once lacks nothing."""

    def __init__(self, path: Path):
        self.path = path
        self.next_step = 0  # steps before it were given
        self._file, self._read = 0, 0  # which file (it is replaced on resume), and how many bytes of it
        self._held: Row | None = None

    def rewind(self, step: int) -> None:
        """Give everything from `step` on (again)."""
        self.next_step, self._file = step, 0

    def new(self, is_over: bool) -> Iterator[Row]:
        """What has become complete; with `is_over` the last step too."""
        for row in self._lines():
            step = int(row.pop("step"))
            if step < self.next_step:
                continue
            if self._held and step > self._held[0]:
                yield self._give()
            values = {k: float(v) for k, v in row.items() if k != "seconds"}
            self._held = (step, (self._held[1] if self._held else {}) | values)
        if is_over and self._held:
            yield self._give()

    def _give(self) -> Row:
        assert self._held
        given, self._held = self._held, None
        self.next_step = given[0] + 1
        return given

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            with open(self.path, "rb") as f:
                found = os.fstat(f.fileno())
                if found.st_ino != self._file or found.st_size < self._read:
                    self._file, self._read, self._held = found.st_ino, 0, None
                f.seek(self._read)
                whole = f.read().rpartition(b"\n")[0]
        except FileNotFoundError:
            return
        if whole:
            self._read += len(whole) + 1
        for line in whole.split(b"\n"):
            if line.strip():
                yield json.loads(line)


class Looks:
    """The sampled gradients in gradients.npz, read again when it has changed."""

    def __init__(self, path: Path):
        self.path = path
        self._version: tuple[int, int] | None = None
        self._steps = np.zeros(0, np.int64)
        self._elements = np.zeros((0, 0), np.float32)
        self._layers = np.zeros(0, str)

    def until(self, step: int) -> dict[str, np.ndarray]:
        """log10 |g| of the elements that are not 0, by layer, at the last look before `step` has passed."""
        self._refresh()
        n = int(np.searchsorted(self._steps, step, side="right"))
        if not n:
            return {}
        last = self._elements[n - 1]
        usable = np.isfinite(last) & (last != 0)
        found = {name: np.log10(np.abs(last[usable & (self._layers == name)])) for name in dict.fromkeys(self._layers)}
        return {str(name): values for name, values in found.items() if len(values)}

    def _refresh(self) -> None:
        from asr_lab.gradients.record import read_record
        from asr_lab.gradients.sample import layer_of

        try:
            found = self.path.stat()
            version = (found.st_ino, found.st_mtime_ns)
            if version == self._version:
                return
            self._version = version
            record = read_record(self.path)
        except (OSError, AsrLabError):
            return
        if not record.has("elements"):
            return
        self._steps, self._elements = record.looked, record.looks["elements"]
        self._layers = np.array([layer_of(name) for name in record.sample.parameters])[record.sample.element_of]


def findings(folder: Path) -> list[dict[str, Any]]:
    """Rows of findings.jsonl, those that can be read"""
    try:
        return read_jsonl(folder / "findings.jsonl")
    except (OSError, ValueError):
        return []


def utterances(run: Run, n: int) -> list[Utterance]:
    """The first `n` of the test split with what came of them, and their sound where the corpus is here."""
    try:
        rows = read_jsonl(run.rows_file("test"))[:n]
    except (OSError, ValueError):  # a toy landscape, or a run that is not done
        return []
    if run.kind != "speech" or not rows:
        return [Utterance(row, None) for row in rows]
    read = _reader(run)
    return [Utterance(row, read(str(row["id"]))) for row in rows]


def _reader(run: Run) -> Any:
    """`read(id)`: (samples, rate) of a test utterance, or None"""
    from hydra.utils import instantiate  # not build.make, which imports PyTorch and Lightning: seconds

    from asr_lab.data import audio

    try:
        corpus = instantiate(run.config["data"], _convert_="all")
        known = {u.id: u for u in corpus.splits["test"]}
    except Exception:  # not here any more, or of another version: the table goes without sound
        known, corpus = {}, None

    def read(name: str) -> tuple[np.ndarray, int] | None:
        u = known.get(name)
        if u is None:
            return None
        channel = getattr(corpus, "channel", audio.MIX) if u.channel is None else u.channel
        try:
            return audio.read(u.audio, u.member, u.offset, u.duration, channel)
        except (AsrLabError, OSError):
            return None

    return read
