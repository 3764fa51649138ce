"""metrics.jsonl, read as it grows: only what was appended since the last time."""

import json
import os
import threading
from array import array
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_lab.dashboard.places import Places

FILE = "metrics.jsonl"
AXES = ("step", "epoch", "seconds")
MOST_BYTES = 400_000_000  # of numbers that are kept
MOST_KEYS = 500  # of a file; what has more was not written by a run

Floats = NDArray[np.float64]


class Columns:
    """The numbers of one file by key, and where reading goes on."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._forget(inode=0)

    def _forget(self, inode: int) -> None:
        self.inode, self.offset = inode, 0
        self.axes = {name: array("d") for name in AXES}
        self.rows: dict[str, array[int]] = {}  # number of the row of each value
        self.values: dict[str, array[float]] = {}
        self.n_bad = 0  # lines that are no rows

    def read(self, path: Path) -> None:
        """Takes what is new; a file that became another one or shorter is read from its beginning."""
        with open(path, "rb") as f:
            now = os.fstat(f.fileno())
            if now.st_ino != self.inode or now.st_size < self.offset:
                self._forget(now.st_ino)
            if now.st_size == self.offset:
                return
            f.seek(self.offset)
            data = f.read(now.st_size - self.offset)
        end = data.rfind(b"\n") + 1  # a line that is being written is left for the next time
        lines = [line for line in data[:end].split(b"\n") if line.strip()]
        if not self._take_together(lines):
            for line in lines:
                self._take(line)
        self.offset += end

    def _take_together(self, lines: list[bytes]) -> bool:
        """Rows of the same keys as columns, which is quicker than one by one; False, and nothing done, where a line
        is out of the ordinary."""
        groups: dict[tuple[str, ...], list[tuple[int, Any]]] = {}
        columns: list[tuple[str, list[int], list[float]]] = []
        try:
            rows = json.loads(b"[" + b",".join(lines) + b"]")
            axes = [[float(row.get(axis, "nan")) for row in rows] for axis in AXES]
            for number, row in enumerate(rows, start=len(self.axes["step"])):
                groups.setdefault(tuple(row), []).append((number, row.values()))
            for keys, members in groups.items():
                for key, values in zip(keys, zip(*(v for _, v in members), strict=True), strict=True):
                    if key not in AXES and set(map(type, values)) <= {float, int}:
                        columns.append((key, [n for n, _ in members], [float(v) for v in values]))
                    elif key not in AXES:
                        return False
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            return False
        if len(rows) != len(lines) or len(self.values.keys() | {k for k, *_ in columns}) > MOST_KEYS:
            return False
        for axis, places in zip(AXES, axes, strict=True):
            self.axes[axis].extend(places)
        for key, numbers, values in columns:
            self.rows.setdefault(key, array("l")).extend(numbers)
            self.values.setdefault(key, array("d")).extend(values)
        scored = [self.axes["step"][n] for key, numbers, _ in columns if key.startswith("test/") for n in numbers]
        if scored:
            self._drop_scoring(min(scored))
        return True

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            place = [float(row.get(axis, "nan")) for axis in AXES]
            pairs = [(k, float(v)) for k, v in row.items() if type(v) in (float, int) and k not in AXES]
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            self.n_bad += 1
            return
        number = len(self.axes["step"])
        for axis, value in zip(AXES, place, strict=True):
            self.axes[axis].append(value)
        if any(key.startswith("test/") for key, _ in pairs):
            self._drop_scoring(place[0])
        for key, value in pairs:
            if key not in self.values:
                if len(self.values) >= MOST_KEYS:
                    continue
                self.rows[key], self.values[key] = array("l"), array("d")
            self.rows[key].append(number)
            self.values[key].append(value)

    def _drop_scoring(self, step: float) -> None:
        """Before a run is scored on test, its best checkpoint is on val: no further point of the training's curve."""
        for key in (k for k in self.values if k.startswith("val/")):
            kept = [i for i, row in enumerate(self.rows[key]) if not self.axes["step"][row] >= step]
            self.rows[key] = array("l", [self.rows[key][i] for i in kept])
            self.values[key] = array("d", [self.values[key][i] for i in kept])

    @property
    def n_bytes(self) -> int:
        return 24 * len(self.axes["step"]) + 16 * sum(map(len, self.values.values()))

    def points(self, key: str, axis: str) -> tuple[Floats, Floats]:
        """(N,) places on the axis and (N,) values of `key`; none where the file has no such key."""
        if key not in self.values:
            return np.zeros(0), np.zeros(0)
        places = np.frombuffer(self.axes[axis].tobytes(), np.float64)
        rows = np.frombuffer(self.rows[key].tobytes(), np.dtype("l"))
        return places[rows], np.frombuffer(self.values[key].tobytes(), np.float64)


class Metrics:
    """The columns of many runs; those that were not asked for longest go first."""

    def __init__(self, places: Places):
        self.places = places
        self._found: OrderedDict[Path, Columns] = OrderedDict()
        self._n_bytes = 0  # of all of them
        self._lock = threading.Lock()

    def mark(self, run: Path) -> Any:
        """Changes with the file."""
        return self.places.stamp(run / FILE)

    def keys(self, run: Path) -> tuple[list[str], int]:
        """What the run logged, and how many lines are no rows."""
        columns = self._columns(run)
        if columns is None:
            return [], 0
        with columns.lock:
            return sorted(columns.values), columns.n_bad

    def points(self, run: Path, key: str, axis: str) -> tuple[Floats, Floats]:
        """As `Columns.points`; none where there is no file."""
        columns = self._columns(run)
        if columns is None:
            return np.zeros(0), np.zeros(0)
        with columns.lock:
            return columns.points(key, axis)

    def _columns(self, run: Path) -> Columns | None:
        if self.places.stamp(run / FILE) is None:
            return None
        with self._lock:
            columns = self._found.setdefault(run, Columns())
            self._found.move_to_end(run)
        with columns.lock:
            before = columns.n_bytes
            try:
                columns.read(run / FILE)
            except OSError:
                return None
            grown = columns.n_bytes - before
        with self._lock:
            self._n_bytes += grown
            while len(self._found) > 1 and self._n_bytes > MOST_BYTES:
                self._n_bytes -= self._found.popitem(last=False)[1].n_bytes
        return columns


def thin(xs: Floats, ys: Floats, most: int) -> dict[str, Any]:
    """At most `most` points of a curve: means of neighbours, with their range where there are several.

    Returns `x`, `y`, and where points were put together `low`, `high` and `n`, how many of them (of the last point
    maybe less). A value that is no number is left out, unless all neighbours are: then it is null and makes a gap.
    """
    order = np.argsort(xs, kind="stable") if np.any(np.diff(xs) < 0) else slice(None)
    xs, ys = xs[order], ys[order]
    there = np.isfinite(xs)
    xs, ys = xs[there], ys[there]
    n = max(1, -(-len(xs) // most))
    if n == 1:
        return {"x": _rounded(xs), "y": _rounded(ys)}
    starts = np.arange(0, len(xs), n)
    finite = np.isfinite(ys)
    counts = np.add.reduceat(finite.astype(float), starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.add.reduceat(np.where(finite, ys, 0.0), starts) / np.where(counts > 0, counts, np.nan)
    lows = np.minimum.reduceat(np.where(finite, ys, np.inf), starts)
    highs = np.maximum.reduceat(np.where(finite, ys, -np.inf), starts)
    sizes = np.diff(np.append(starts, len(xs)))
    middle = np.add.reduceat(xs, starts) / sizes
    found = {"x": middle, "y": means, "low": lows, "high": highs}
    return {k: _rounded(v) for k, v in found.items()} | {"n": n}


def _rounded(values: Floats) -> list[float | None]:
    """Five figures: more than a screen has."""
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values.tolist()]
