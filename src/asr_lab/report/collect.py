"""From files to values: everything a report needs of one experiment's folder, checked once.

Files come from runs that may have died while writing, or from an older version: whatever cannot be used is named in
`Cell.damage` or `Experiment.damage` and never raises. Values past this point are clean: names are text, numbers are
numbers.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asr_lab.errors import AsrLabError, nearest
from asr_lab.hold import holder
from asr_lab.report.records import (
    CONFIG,
    HYPS,
    RESULT,
    Scores,
    as_numbers,
    as_object,
    as_text,
    read_config,
    read_curve,
    read_object,
    read_scores,
    values_of,
)

PLAN = "sweep.json"
METRICS = "metrics.jsonl"
CANCELLED = ".cancelled"
SCORES = ("wer", "cer")
PERPLEXITY = "ppl"  # the score of language models
GAP = "gap"  # the score of toy landscapes
STATUSES = ("planned", "running", "done", "failed", "preempted", "cancelled", "exploded", "interrupted")


@dataclass(frozen=True)
class Cell:
    """One run, planned or found. `status` is the run's own, or `missing`, `stale` (ran with another configuration than
    the plan's) or `damaged` (result.json cannot be read)."""

    name: str
    status: str
    reason: str = ""
    planned: bool = True
    factors: dict[str, str] = field(default_factory=dict)  # `seed` included
    fingerprint: str = ""
    score: str = "wer"  # "cer", "ppl" or "gap": what chose its checkpoint; older results say nothing and mean wer
    metrics: dict[str, float] = field(default_factory=dict)  # rates are shares; a nan stays a nan
    numbers: dict[str, float] = field(default_factory=dict)  # parameters, encoder/parameters, seconds/train, ...
    best: dict[str, float] = field(default_factory=dict)  # epoch, step and value of the checkpoint that was tested
    environment: dict[str, str] = field(default_factory=dict)
    git: dict[str, str] = field(default_factory=dict)
    digest: dict[str, str] = field(default_factory=dict)  # of each split's data
    finished: str = ""
    scores: Scores | None = None
    curve: tuple[dict[str, float], ...] = ()  # rows of metrics.jsonl, also of a cell that did not finish
    config: Mapping[str, Any] = field(default_factory=dict)  # nested; empty where config.yaml cannot be read
    damage: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        return self.status == "done"

    @property
    def seed(self) -> str:
        return self.factors.get("seed", "")


@dataclass(frozen=True)
class Experiment:
    """One folder of `outputs/`: the plan, and what came of it."""

    folder: Path
    name: str
    question: str
    command: str
    axes: dict[str, list[str]]  # the plan's swept keys; empty without a plan
    cells: tuple[Cell, ...]  # planned ones first, in the plan's order
    damage: tuple[str, ...]  # of files that belong to no cell

    @property
    def score(self) -> str:
        """What ranks the configurations: the score of most finished cells, wer among equals."""
        counts = Counter(c.score for c in self.cells if c.done and c.planned)
        return max((*SCORES, PERPLEXITY, GAP), key=lambda s: counts[s])


def collect(folder: Path) -> Experiment:
    """Read `outputs/<experiment>/`.

    Raises:
        AsrLabError: the folder does not exist, or no cell in it has finished.
    """
    folder = Path(folder)
    if not folder.is_dir():
        siblings = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        raise AsrLabError(f"{folder}: no such folder{nearest(folder.name, siblings)}")
    plan, damage = read_object(folder / PLAN) if (folder / PLAN).exists() else ({}, [])
    planned = {}
    common = as_object(plan.get("common"))
    for entry in plan["cells"] if isinstance(plan.get("cells"), list) else []:
        name = str(as_object(entry).get("name", ""))
        if Path(name).name == name and name not in ("", ".."):  # a plan never reaches outside its folder
            planned[name] = {**as_object(entry), "factors": {**common, **as_object(as_object(entry).get("factors"))}}
        else:
            damage.append(f"{PLAN}: '{name}' is not the name of a cell's folder; the entry was left out")
    found = sorted(p.parent.name for p in folder.glob(f"*/{RESULT}") if p.parent.name not in planned)
    cells = [_read_cell(folder / name, entry) for name, entry in planned.items()]
    cells += [_read_cell(folder / name, None, planned=not planned) for name in found]
    cells = with_all_factors(cells)
    experiment = Experiment(
        folder=folder,
        name=str(plan.get("experiment") or folder.resolve().name),
        question=str(plan.get("question") or ""),
        command=str(plan.get("command") or ""),
        axes={k: [as_text(v) for v in vs] for k, vs in as_object(plan.get("axes")).items() if isinstance(vs, list)},
        cells=tuple(cells),
        damage=tuple(damage),
    )
    if not any(c.done for c in cells):
        raise AsrLabError(f"{folder}: no finished cell, so nothing to report{_why(cells)}")
    return experiment


def with_all_factors(cells: list[Cell]) -> list[Cell]:
    """A value that some cells override (`clipping.threshold`) is a factor of all whose configuration has it.

    A cell that never started has no configuration: its value is that of another seed.
    """
    overridden = {k for c in cells for k in c.factors if "." in k}
    found = [values_of(c.config, overridden - c.factors.keys()) for c in cells]
    choices = [frozenset((k, v) for k, v in c.factors.items() if k != "seed") for c in cells]
    known = {chosen: values for chosen, values in zip(choices, found, strict=True) if values}
    return [
        replace(c, factors=c.factors | (values or known.get(chosen, {})))
        for c, values, chosen in zip(cells, found, choices, strict=True)
    ]


def _why(cells: list[Cell]) -> str:
    counts = {s: sum(c.status == s for c in cells) for s in dict.fromkeys(c.status for c in cells)}
    reason = next((f"; first reason: {c.name}: {c.reason}" for c in cells if c.reason), "")
    return f" ({', '.join(f'{n} {s}' for s, n in counts.items())}{reason})" if cells else " (it holds no cell)"


def _read_cell(folder: Path, entry: Mapping | None, planned: bool = True) -> Cell:
    """One cell; `entry` is its line of the plan."""
    entry = entry or {}
    own = {k: as_text(v) for k, v in as_object(entry.get("factors")).items()}
    if not (folder / RESULT).exists():
        reason = f"started, but left no {RESULT}" if folder.is_dir() else "never started"
        return Cell(folder.name, "missing", reason, planned, own, str(entry.get("fingerprint") or ""))
    result, damage = read_object(folder / RESULT)
    if damage:
        return Cell(folder.name, "damaged", damage[0], planned, own, damage=tuple(damage))

    status, reason = _status(folder, result)
    expected, fingerprint = str(entry.get("fingerprint") or ""), str(result.get("fingerprint") or "")
    if status not in STATUSES:
        status, reason = "damaged", f"{RESULT} has no known status ('{status}')"
    elif expected and fingerprint and expected != fingerprint:
        status, reason = "stale", f"ran with another configuration ({fingerprint}) than the plan's ({expected})"
    score = next((s for s in (*SCORES, PERPLEXITY, GAP) if s == result.get("score")), "wer")
    scores, curve = None, []
    if status == "done":
        scores = read_scores(folder / HYPS, damage) if score in SCORES else None
    if status == "done" or (folder / METRICS).exists():  # of another one a torn line is what one expects
        curve = read_curve(folder / METRICS, damage if status == "done" else [])
    metrics = as_numbers(result.get("metrics"))
    if status == "done" and scores is None and not math.isfinite(metrics.get(f"test/{score}", math.nan)):
        status, reason = "damaged", f"{RESULT} says done, but there is no usable test/{score} and no {HYPS}"
    return Cell(
        name=folder.name,
        status=status,
        reason=reason,
        planned=planned,
        factors={k: as_text(v) for k, v in as_object(result.get("factors")).items()} | own,
        fingerprint=fingerprint,
        score=score,
        metrics=metrics,
        numbers=as_numbers({k: v for k, v in result.items() if k not in ("seconds", "best")})
        | {
            f"{part}/{k}": v
            for part in ("seconds", "encoder", "gradients")
            for k, v in as_numbers(result.get(part)).items()
        }
        | _receptive_field(as_object(result.get("encoder")).get("receptive_field_s")),
        best=as_numbers(result.get("best")),
        environment={k: as_text(v) for k, v in as_object(result.get("environment")).items()},
        git={k: as_text(v) for k, v in as_object(result.get("git")).items() if v is not None},
        digest={k: as_text(v) for k, v in as_object(as_object(result.get("data")).get("digest")).items()},
        finished=str(result.get("finished") or ""),
        scores=scores,
        curve=tuple(curve),
        config=read_config(folder / CONFIG),
        damage=tuple(damage),
    )


def _status(folder: Path, result: Mapping) -> tuple[str, str]:
    """(status, reason) by the run's files: one that says it runs, and whose process is gone, was preempted."""
    status, reason = str(result.get("status")), str(result.get("reason") or "")
    if status == "running" and not ((who := holder(folder)) and who.is_alive):
        return "preempted", f"its process is gone{f' from {who.host}' if who else ''}"
    if status in ("planned", "preempted", "interrupted") and (folder / CANCELLED).exists():
        said, _, _ = (folder / CANCELLED).read_text(encoding="utf-8", errors="replace").strip().partition("\n")
        return "cancelled", said or reason
    return status, reason


def _receptive_field(seconds: object) -> dict[str, float]:
    """[before, after] as two numbers; the whole utterance, null in the file, is infinite."""
    if not isinstance(seconds, list) or len(seconds) != 2:
        return {}
    sides = {"before": seconds[0], "after": seconds[1]}
    return as_numbers({f"encoder/sees_{k}_s": math.inf if v is None else v for k, v in sides.items()})
