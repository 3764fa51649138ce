"""The file of a run's gradients: one row a step, and one for each of the steps that were looked at closely."""

from pathlib import Path
from typing import Any

import numpy as np

from asr_lab.errors import DataError
from asr_lab.files import write_atomic

STEP_COLUMNS = ("loss", "norm_before", "norm_after", "clipped", "skipped", "lr", "loss_scale")


class Record:
    """Rows in the order of steps.

    `steps` (N,) are optimizer steps from 0, skipped ones included; `values` (N, C) float32 with `STEP_COLUMNS`;
    `looked` (M,) the steps at which `norms` (M, L), gradient 2-norms before clipping, and `updates` (M, L), ||change of
    the weights|| / ||weights||, were taken for each of the L `layers`. At most `max_rows` rows of each are kept: when
    there are more, every second one of the older half goes, so the beginning is thinner than the end.
    """

    def __init__(self, layers: list[str], max_rows: int):
        if max_rows < 100:
            raise ValueError(f"gradients.max_rows must be at least 100, {max_rows} came")
        self.layers, self.max_rows = layers, max_rows
        self._steps: list[int] = []
        self._values: list[np.ndarray] = []
        self._looked: list[int] = []
        self._norms: list[np.ndarray] = []
        self._updates: list[np.ndarray] = []

    def add(self, step: int, values: np.ndarray) -> None:
        """`values` (C,)"""
        self._steps.append(step)
        self._values.append(values.astype(np.float32))
        if len(self._steps) > self.max_rows:
            keep = _thinner(len(self._steps))
            self._steps, self._values = [self._steps[i] for i in keep], [self._values[i] for i in keep]

    def look(self, step: int, norms: np.ndarray, updates: np.ndarray) -> None:
        """(L,), (L,)"""
        self._looked.append(step)
        self._norms.append(norms.astype(np.float32))
        self._updates.append(updates.astype(np.float32))
        if len(self._looked) > self.max_rows:
            keep = _thinner(len(self._looked))
            self._looked, self._norms, self._updates = (
                [rows[i] for i in keep] for rows in (self._looked, self._norms, self._updates)
            )

    @property
    def steps(self) -> np.ndarray:
        return np.array(self._steps, np.int64)

    @property
    def values(self) -> np.ndarray:
        return np.stack(self._values) if self._values else np.zeros((0, len(STEP_COLUMNS)), np.float32)

    @property
    def looked(self) -> np.ndarray:
        return np.array(self._looked, np.int64)

    @property
    def norms(self) -> np.ndarray:
        return np.stack(self._norms) if self._norms else np.zeros((0, len(self.layers)), np.float32)

    @property
    def updates(self) -> np.ndarray:
        return np.stack(self._updates) if self._updates else np.zeros((0, len(self.layers)), np.float32)

    def column(self, name: str) -> np.ndarray:
        """(N,) one of `STEP_COLUMNS`"""
        return self.values[:, STEP_COLUMNS.index(name)]

    def cut(self, step: int) -> None:
        """Forgets all steps from `step` on: a resumed training takes them again."""
        n, m = np.searchsorted(self.steps, step), np.searchsorted(self.looked, step)
        del self._steps[n:], self._values[n:], self._looked[m:], self._norms[m:], self._updates[m:]

    def write(self, file: Path) -> None:
        """
        Raises:
            DiskFullError: no space; an older file stays.
        """
        arrays: dict[str, Any] = {
            "layers": np.array(self.layers, dtype=str),
            "columns": np.array(STEP_COLUMNS, dtype=str),
            "steps": self.steps,
            "values": self.values,
            "looked": self.looked,
            "norms": self.norms,
            "updates": self.updates,
        }
        write_atomic(file, lambda f: np.savez_compressed(f, **arrays))


def read_record(file: Path, max_rows: int = 2**31) -> Record:
    """
    Raises:
        DataError: no such file, or it cannot be read.
    """
    if not file.exists():
        raise DataError(f"{file}: no record of gradients; train with gradients=record")
    try:
        with np.load(file, allow_pickle=False) as saved:
            record = Record([str(name) for name in saved["layers"]], max_rows)
            order = [list(saved["columns"]).index(name) for name in STEP_COLUMNS]
            record._steps, record._values = saved["steps"].tolist(), list(saved["values"][:, order])
            record._looked = saved["looked"].tolist()
            record._norms, record._updates = list(saved["norms"]), list(saved["updates"])
    except Exception as error:  # a torn zip file, missing arrays, other columns
        raise DataError(f"{file}: not a record of gradients ({error})") from error
    return record


def _thinner(n: int) -> list[int]:
    half = n // 2
    return [*range(0, half, 2), *range(half, n)]
