"""What has become of an experiment's cells, read from its files: plan, ledger, results, locks and progress.

Nobody is asked, no scheduler and no process: a cell that says it runs and whose heart no longer beats is preempted.
"""

import json
import os
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from asr_lab.errors import RunError, nearest
from asr_lab.hold import holder
from asr_lab.ledger import STATES, Event, last_events, read_events
from asr_lab.run import CANCELLED, Run
from asr_lab.sweep.plan import read_plan, with_common

PROGRESS = "progress.json"
OVER = ("done", "failed", "exploded", "cancelled")


@dataclass(frozen=True)
class CellState:
    """One cell."""

    name: str
    state: str  # one of ledger.STATES
    factors: dict[str, Any]
    reason: str = ""
    host: str | None = None  # where it runs, or ran
    pid: int | None = None
    job: str | None = None  # of a scheduler
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    metric: str | None = None  # "wer", "cer", "ppl" or "gap"
    score: float | None = None  # test score of a cell that is done, last validation of another
    seconds: float | None = None  # that a cell that is done took
    eta_s: float | None = None  # of one that runs


@dataclass(frozen=True)
class ExperimentState:
    """All cells of an experiment's plan."""

    folder: Path
    experiment: str
    question: str
    axes: dict[str, list[Any]]
    cells: list[CellState]
    damage: list[str] = field(default_factory=list)  # what could not be read

    @property
    def counts(self) -> dict[str, int]:
        """Cells in each state"""
        counts = Counter(c.state for c in self.cells)
        return {state: counts[state] for state in STATES}

    @property
    def eta_s(self) -> float | None:
        """Until all is done, if as many cells run as now and the rest take as long as those that are done."""
        running = [c for c in self.cells if c.state == "running"]
        took = [c.seconds for c in self.cells if c.state == "done" and c.seconds]
        left = sum(self.counts[s] for s in ("planned", "queued", "preempted"))
        if not running or (left and not took):
            return None
        mean = sum(took) / len(took) if took else 0.0
        return (left * mean + sum(mean if c.eta_s is None else c.eta_s for c in running)) / len(running)

    def as_json(self) -> dict[str, Any]:
        return {
            "experiment": self.experiment,
            "question": self.question,
            "folder": str(self.folder),
            "total": len(self.cells),
            **self.counts,
            "eta_s": self.eta_s,
            "axes": self.axes,
            "cells": [asdict(c) for c in self.cells],
            "damage": self.damage,
        }


def state_of(folder: Path) -> ExperimentState:
    """Of `outputs/<experiment>`.

    Raises:
        RunError: there is no plan, or a newer asr_lab wrote the ledger.
    """
    folder = Path(folder)
    plan = read_plan(folder)
    if plan is None:
        siblings = [p.parent.name for p in folder.parent.glob("*/sweep.json")]
        raise RunError(f"{folder}: no sweep was launched there{nearest(folder.name, siblings)}")
    events, damage = read_events(folder)
    last = last_events(events)
    jobs = {e.cell: str(e.more["job"]) for e in events if "job" in e.more}
    with os.scandir(folder) as entries:
        there = {e.name for e in entries if e.is_dir()}
    cells = []
    for cell in with_common(plan):
        name, factors = cell["name"], cell["factors"]
        if name not in there:
            cells.append(CellState(name, "planned", factors))
            continue
        try:
            cells.append(cell_state(folder / name, factors, last.get(name), jobs.get(name)))
        except RunError as error:
            damage.append(str(error))
            cells.append(CellState(name, "failed", factors, "its result.json cannot be read"))
    question = str(plan.get("question") or "")
    return ExperimentState(folder, str(plan["experiment"]), question, plan.get("axes", {}), cells, damage)


def cell_state(folder: Path, factors: dict[str, Any], last: Event | None = None, job: str | None = None) -> CellState:
    """Of one run's folder; `last` is its last event in the ledger.

    Raises:
        RunError: its result.json cannot be read, or says nothing that can be understood.
    """
    try:
        return _cell(folder, factors, last, job)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder}/result.json: not what a run writes ({error}); move it away") from None


def _cell(folder: Path, factors: dict[str, Any], last: Event | None, job: str | None) -> CellState:
    if last and last.state in ("done", "failed", "exploded") and (folder / "result.json").exists():
        more = {k: last.more.get(k) for k in ("metric", "score", "seconds")}
        return CellState(folder.name, last.state, factors, last.reason, last.host, last.pid, job, **more)
    result = Run.result_in(folder) or {"status": "planned"}
    status, reason = result["status"], str(result.get("reason") or "")
    if status == "done":
        metric = result.get("score", "wer")
        score, seconds = result["metrics"].get(f"test/{metric}"), result["seconds"]["total"]
        return CellState(folder.name, "done", factors, job=job, metric=metric, score=score, seconds=seconds)
    who, progress = holder(folder), _progress(folder)
    if who and who.is_alive:
        status, reason = "running", ""
    elif (folder / CANCELLED).exists() and status not in ("failed", "exploded"):
        status, reason = "cancelled", "" if status == "running" else reason  # it may have been killed before it said so
    elif status == "running":
        status, reason = "preempted", f"its process is gone{f' from {who.host}' if who else ''}"
    elif status == "interrupted":  # as it was called once
        status = "preempted"
    elif status == "planned" and last and last.state == "queued":
        status = "queued"
    return CellState(
        folder.name,
        status,
        factors,
        reason,
        who.host if who else None,
        who.pid if who else None,
        job,
        **{k: progress.get(k) for k in ("epoch", "epochs", "step", "steps", "metric", "score")},
        eta_s=_eta(progress) if status == "running" else None,
    )


def _progress(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / PROGRESS).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _eta(progress: dict[str, Any]) -> float | None:
    """Seconds, at the pace of this process so far"""
    if not progress.get("steps") or progress["step"] <= progress["first_step"]:
        return None
    pace = (progress["time"] - progress["began"]) / (progress["step"] - progress["first_step"])
    left = (progress["steps"] - progress["step"]) * pace - (time.time() - progress["time"])
    return max(0.0, round(left, 1))
