"""Running a finished run once more, to see whether the same configuration, data and code give the same bits."""

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr_lab.environment import code_digest, environment
from asr_lab.errors import RunError
from asr_lab.files import read_jsonl
from asr_lab.run import Run

TIMES = ("seconds", "time", "per_second", "memory")  # in names of metrics that no second run repeats
# Of the environment: what can change the last bits.
MATTERS = ("python", "torch", "torchaudio", "pytorch-lightning", "numpy", "cpu", "threads", "device", "cuda")


@dataclass(frozen=True)
class Part:
    """One kind of thing that was compared."""

    what: str
    n: int  # that both have
    differing: int
    first: str = ""  # the first difference

    @property
    def same(self) -> bool:
        return self.differing == 0


@dataclass(frozen=True)
class Rerun:
    """The second run, and how it compares."""

    folder: Path
    parts: list[Part] = field(default_factory=list)
    suspects: list[str] = field(default_factory=list)  # differences in code, versions, machine

    @property
    def bit_equal(self) -> bool:
        return all(part.same for part in self.parts)

    def as_json(self) -> dict[str, Any]:
        parts = [{"what": p.what, "n": p.n, "differing": p.differing, "first": p.first} for p in self.parts]
        return {"folder": str(self.folder), "bit_equal": self.bit_equal, "parts": parts, "suspects": self.suspects}


def second_run(run: Run) -> Run:
    """A fresh run of the same configuration in a folder inside the first one's, frozen; nothing is logged elsewhere.

    Raises:
        RunError: the first one is not done.
    """
    if not run.is_done():
        raise RunError(
            f"{run.folder}: is not done ({(run.result() or {}).get('status')}); only a finished run is rerun"
        )
    number = 1
    while (folder := run.folder / f"rerun-{number}").exists():
        number += 1
    config = copy.deepcopy(run.config)
    config["logger"] = {"_target_": "asr_lab.tracking.loggers.none", "_partial_": True}
    again = Run(folder, config, run.factors)
    again.freeze()
    return again


def compared(first: Run, second: Run) -> Rerun:
    """Two finished runs, bit by bit: curves, hypotheses, metrics, weights."""
    parts = [
        _part("points of curves", _curves(first), _curves(second)),
        _part("results", _metrics(first), _metrics(second)),
        _part("hypotheses", _rows(first), _rows(second)),
        _weights(first, second),
    ]
    return Rerun(second.folder, [p for p in parts if p.n], list(_suspects(first, second)))


def _curves(run: Run) -> dict[str, Any]:
    """(step, name) -> value; a resumed run has written some steps of a validation in another row"""
    return {
        f"{key} at step {row['step']}": value
        for row in read_jsonl(run.metrics_file)
        for key, value in row.items()
        if key not in ("step", "epoch") and not _is_time(key)
    }


def _metrics(run: Run) -> dict[str, Any]:
    result = run.result() or {}
    return {key: value for key, value in result["metrics"].items() if not _is_time(key)}


def _rows(run: Run) -> dict[str, Any]:
    found = {}
    for split in ("val", "test"):
        path = run.rows_file(split)
        rows = read_jsonl(path) if path.exists() else []
        found |= {f"{split} {i}": json.dumps(row, sort_keys=True) for i, row in enumerate(rows)}
    return found


def _weights(first: Run, second: Run) -> Part:
    import torch

    def state(run: Run) -> dict[str, Any]:
        return torch.load(run.best_checkpoint, map_location="cpu", weights_only=False)["state_dict"]

    a, b = state(first), state(second)
    differing = [k for k in a.keys() | b.keys() if k not in a or k not in b or not _equal(a[k], b[k])]
    if not differing:
        return Part("tensors of weights", len(a), 0)
    key = sorted(differing)[0]
    both = key in a and key in b and a[key].shape == b[key].shape
    by = f" by {(a[key].double() - b[key].double()).abs().max():.1e}" if both else ""
    return Part("tensors of weights", len(a), len(differing), f"{key}{by}")


def _equal(a: Any, b: Any) -> bool:
    import torch

    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def _part(what: str, a: dict[str, Any], b: dict[str, Any]) -> Part:
    keys = [*a, *(k for k in b if k not in a)]
    differing = [k for k in keys if k not in a or k not in b or not _same(a[k], b[k])]
    first = f"{differing[0]}: {_short(a.get(differing[0]))}, then {_short(b.get(differing[0]))}" if differing else ""
    return Part(what, len(keys), len(differing), first)


def _same(a: Any, b: Any) -> bool:
    both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return a == b or both_nan


def _suspects(first: Run, second: Run) -> Iterator[str]:
    old, new = first.result() or {}, second.result() or {}
    if old.get("code") != code_digest():
        yield f"code: {old.get('code', 'not recorded')} then, {code_digest()} now"
    if old.get("data", {}).get("digest") != new.get("data", {}).get("digest"):
        yield "data: the digests of the splits differ"
    if old.get("resumed_at_step"):
        yield f"the first run was resumed at step {old['resumed_at_step']}"
    now = environment()
    for key in MATTERS:
        if (was := old.get("environment", {}).get(key)) != now[key]:
            yield f"{key}: {was} then, {now[key]} now"


def _is_time(key: str) -> bool:
    return any(word in key for word in TIMES)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:57]}..."
