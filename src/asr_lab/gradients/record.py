"""The file of a run's gradients: one row a step, and one for each of the steps that were looked at closely."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr_lab.errors import DataError
from asr_lab.files import write_atomic
from asr_lab.gradients.sample import Sample, layer_of

Floats = NDArray[np.floating]
STEP_COLUMNS = ("loss", "norm_before", "norm_after", "clipped", "skipped", "lr", "loss_scale")
# What a close look has, and of what each column is: a parameter, a sampled element, a sampled unit.
LOOK = {
    "norms": "parameters",  # 2-norm of the gradient before clipping
    "peaks": "parameters",  # magnitude of its largest element
    "weights": "parameters",  # 2-norm of the weights before the step
    "moves": "parameters",  # 2-norm of the step's change of them
    "elements": "element_of",  # of the gradient before clipping
    "unit_norms": "unit_of",  # 2-norms of a unit's gradient before clipping
    "unit_weights": "unit_of",  # and of its weights
}


class Layers(NamedTuple):
    """Close looks added up by layer."""

    names: list[str]  # L
    norms: Floats  # (M, L) of gradients before clipping
    ratios: Floats  # (M, L) ||change of the weights|| / ||weights||


class Record:
    """Rows in the order of steps.

    `steps` (N,) are optimizer steps from 0, skipped ones included; `values` (N, C) float32 with `STEP_COLUMNS`.
    `looked` (M,) are the steps of close looks and `looks` their numbers, (M, ...) float32 with the keys of `LOOK`; what
    an older file has not is not there. At most `max_rows` rows and `max_looks` looks are kept: when there are more,
    every second one of the older half goes, so the beginning is thinner than the end.
    """

    def __init__(self, sample: Sample, max_rows: int, max_looks: int):
        for name, value, least in (("max_rows", max_rows, 100), ("max_looks", max_looks, 10)):
            if value < least:
                raise ValueError(f"gradients.{name} must be at least {least}, {value} came")
        self.sample, self.max_rows, self.max_looks = sample, max_rows, max_looks
        self.steps, self.looked = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.values = np.zeros((0, len(STEP_COLUMNS)), np.float32)
        self.looks = {key: np.zeros((0, len(getattr(sample, of))), np.float32) for key, of in LOOK.items()}

    def add(self, steps: list[int], values: Floats) -> None:
        """`values` (len(steps), C)"""
        self.steps = np.concatenate([self.steps, np.array(steps, np.int64)])
        self.values = np.concatenate([self.values, values.astype(np.float32)])
        while len(self.steps) > self.max_rows:
            keep = _thinner(len(self.steps))
            self.steps, self.values = self.steps[keep], self.values[keep]

    def look(self, step: int, numbers: Floats) -> None:
        """`numbers`: the rows of a look, one after the other, in the order of `LOOK`"""
        self.looked = np.append(self.looked, step)
        ends = np.cumsum([rows.shape[1] for rows in self.looks.values()])[:-1]
        for key, row in zip(self.looks, np.split(numbers.astype(np.float32), ends), strict=True):
            self.looks[key] = np.concatenate([self.looks[key], row[None]])
        if len(self.looked) > self.max_looks:
            keep = _thinner(len(self.looked))
            self.looked = self.looked[keep]
            self.looks = {key: rows[keep] for key, rows in self.looks.items()}

    def column(self, name: str) -> Floats:
        """(N,) one of `STEP_COLUMNS`"""
        return self.values[:, STEP_COLUMNS.index(name)]

    def has(self, *keys: str) -> bool:
        """Whether something was looked at closely, with all of these keys of `LOOK`."""
        return len(self.looked) > 0 and all(key in self.looks for key in keys)

    def layers(self) -> Layers:
        index = dict.fromkeys(map(layer_of, self.sample.parameters))
        names = list(index)
        number = np.array([names.index(layer_of(name)) for name in self.sample.parameters], np.int64)
        norms, moves, weights = (together(self.looks[key], number, len(names)) for key in ("norms", "moves", "weights"))
        return Layers(names, norms, moves / np.maximum(weights, 1e-12))

    def cut(self, step: int) -> None:
        """Forgets all steps from `step` on: a resumed training takes them again."""
        self._keep(self.steps < step, self.looked < step)

    def skip(self, n_steps: int) -> None:
        """Forgets the first `n_steps`."""
        self._keep(self.steps >= n_steps, self.looked >= n_steps)

    def _keep(self, steps: NDArray[np.bool_], looked: NDArray[np.bool_]) -> None:
        self.steps, self.values, self.looked = self.steps[steps], self.values[steps], self.looked[looked]
        self.looks = {key: rows[looked] for key, rows in self.looks.items()}

    def write(self, file: Path) -> None:
        """
        Raises:
            DiskFullError: no space; an older file stays.
        """
        sample = self.sample._asdict() | {"parameters": np.array(self.sample.parameters, dtype=str)}
        rows = {"columns": np.array(STEP_COLUMNS, dtype=str), "steps": self.steps, "values": self.values}
        arrays: dict[str, Any] = {**sample, **rows, "looked": self.looked, **self.looks}
        # Not compressed: sampled numbers hardly shrink, and a run writes this at every validation.
        write_atomic(file, lambda f: np.savez(f, **arrays))


def together(norms: Floats, part: NDArray[np.int64], n: int) -> Floats:
    """(M, n) 2-norms of `n` parts from those of what they are made of, (M, P); `part` (P,) has the number of each."""
    squares = np.zeros((len(norms), n))
    # Not a product of matrices: 0 times the infinite norm of another part would be no number.
    np.add.at(squares.T, part, norms.T.astype(np.float64) ** 2)
    return np.sqrt(squares)


def read_record(file: Path, max_rows: int = 2**31, max_looks: int = 2**31) -> Record:
    """
    Raises:
        DataError: no such file, or it cannot be read.
    """
    if not file.exists():
        raise DataError(f"{file}: no record of gradients; train with gradients=record")
    try:
        with np.load(file, allow_pickle=False) as saved:
            arrays = dict(saved)
        record = Record(_sample(arrays), max_rows, max_looks)
        order = [list(arrays["columns"]).index(name) for name in STEP_COLUMNS]
        record.steps, record.values, record.looked = arrays["steps"], arrays["values"][:, order], arrays["looked"]
        record.looks = {key: arrays[key] for key in LOOK if key in arrays}
    except Exception as error:  # a torn zip file, missing arrays, other columns
        raise DataError(f"{file}: not a record of gradients ({error})") from error
    return record


def read_steps(file: Path) -> tuple[NDArray[np.int64], dict[str, Floats]]:
    """(steps (N,), each of `STEP_COLUMNS` (N,)) of a record, without its close looks, which are most of the file.

    Raises:
        DataError: as `read_record`.
    """
    if not file.exists():
        raise DataError(f"{file}: no record of gradients; train with gradients=record")
    try:
        with np.load(file, allow_pickle=False) as saved:
            names, steps, values = list(saved["columns"]), saved["steps"], saved["values"]
        return steps, {name: values[:, names.index(name)] for name in STEP_COLUMNS}
    except Exception as error:
        raise DataError(f"{file}: not a record of gradients ({error})") from error


def _sample(arrays: dict[str, Any]) -> Sample:
    if "parameters" not in arrays:  # the first layout, which knew whole layers alone and the ratio of their norms
        arrays["moves"] = arrays["updates"]
        arrays["weights"] = np.ones_like(arrays["updates"])
        nothing = np.zeros(0, np.int64)
        # A further part, so that `layer_of` gives the layer's name back.
        return Sample(tuple(f"{name}.all" for name in arrays["layers"].tolist()), nothing, nothing, nothing, nothing)
    return Sample(tuple(arrays["parameters"].tolist()), *(arrays[key] for key in Sample._fields[1:]))


def _thinner(n: int) -> NDArray[np.int64]:
    half = n // 2
    return np.concatenate([np.arange(0, half, 2), np.arange(half, n)])
