"""What the pages show of all experiments and of the cells of one."""

import threading
import time
from pathlib import Path
from typing import Any

from asr_lab.dashboard.answers import Answer, Kept, Live, answer
from asr_lab.dashboard.places import Places
from asr_lab.dashboard.results import COLUMNS, Summary, summary
from asr_lab.errors import AsrLabError
from asr_lab.report.collect import Cell, Experiment
from asr_lab.report.configurations import swept_factors
from asr_lab.report.records import as_text
from asr_lab.sweep.state import CellState, ExperimentState, cell_state, state_of

DAMAGED = "damaged"  # a state of the page's own, beside those of the ledger
ORDER = ("done", "running", "queued", "preempted", "failed", "exploded", "cancelled", DAMAGED, "planned")
# Files of a cell that say how it is; a link in place of one of them could show what lies elsewhere.
TELLING = ("result.json", ".lock", "progress.json", ".cancelled")
PATIENCE_S = 0.4  # that the list of experiments waits for their first reading
MAX_DAMAGE = 50  # lines that a page shows
_OUT = "leads out of the outputs folder; not shown"


class Experiments:
    """Views of the outputs folder, each renewed while it is looked at."""

    def __init__(self, places: Places):
        self.places = places
        self._results: Kept[Summary] = Kept(100_000)
        self._views: dict[str, Live[tuple[dict[str, Any], Answer]]] = {}
        self._listing = Live(lambda: answer(self._list()))
        self._lock = threading.Lock()

    def listing(self) -> Answer:
        """Every experiment with its counts; one that was never looked at is `pending` until it is read."""
        return self._listing.get()

    def view(self, name: str) -> Answer:
        """
        Raises:
            AbsentError: there is no such experiment.
        """
        self.places.experiment(name)
        return self._live(name).get()[1]

    def cell(self, name: str, run: str) -> tuple[dict[str, Any] | None, list[str]]:
        """The row of one cell, if there is one, and the factors that tell the cells apart. Raises as `view`."""
        self.places.experiment(name)
        view = self._live(name).get()[0]
        return next((cell for cell in view["cells"] if cell["name"] == run), None), view["factors"]

    def _live(self, name: str) -> Live[tuple[dict[str, Any], Answer]]:
        with self._lock:
            return self._views.setdefault(name, Live(lambda: self._make(name)))

    def _list(self) -> dict[str, Any]:
        names = self.places.experiments()
        with self._lock:
            for gone in self._views.keys() - set(names):
                del self._views[gone]
        views = {name: self._live(name) for name in names}
        until = time.monotonic() + PATIENCE_S
        while sum(view.begin() is None for view in views.values()) and time.monotonic() < until:  # all are begun
            time.sleep(0.02)
        rows = []
        for name, view in views.items():
            there = view.begin()
            row: dict[str, Any] = {"name": name, "pending": there is None}
            if there:
                found, keys = there[0], ("question", "counts", "total", "eta_s", "score", "best", "changed", "n_damage")
                row |= {key: found[key] for key in keys}
            rows.append(row)
        return {"experiments": rows, "outputs": self.places.root.name}

    def _make(self, name: str) -> tuple[dict[str, Any], Answer]:
        view = self._view(name)
        return view, answer(view)

    def _view(self, name: str) -> dict[str, Any]:
        folder = self.places.experiment(name)
        state, damage = self._state(folder)
        rows = [self._row(folder, cell, planned=True) for cell in state.cells]
        planned = {cell.name for cell in state.cells}
        others = (n for n in self.places.folders(folder) if n not in planned)
        rows += [
            self._row(folder, CellState(n, "planned", {}), planned=not planned)
            for n in others
            if self.places.stamp(folder / n / "result.json")
        ]
        swept = _swept(name, folder, state.axes, rows)
        fixed = {k: v for k, v in (rows[0]["factors"] if rows else {}).items() if k not in (*swept, "seed")}
        fixed = {k: v for k, v in fixed.items() if all(r["factors"].get(k) == v for r in rows if r["factors"])}
        for row in rows:
            row["factors"] = {k: v for k, v in row["factors"].items() if k not in fixed}
        scores = [r["metric"] for r in rows if r["score"] is not None]
        score = max(set(scores), key=lambda s: (scores.count(s), s)) if scores else "wer"
        best = min((r["score"] for r in rows if r["state"] == "done" and r["metric"] == score and _is(r)), default=None)
        damage += [f"{r['name']}: {r['reason']}" for r in rows if r["state"] == DAMAGED]
        return {
            "name": name,
            "question": state.question,
            "counts": {s: n for s in ORDER if (n := sum(r["state"] == s for r in rows))},
            "total": len(rows),
            "eta_s": _rounded(state.eta_s),
            "score": score,
            "best": best,
            "changed": max((r["finished"] for r in rows), default=""),
            "factors": swept,
            "fixed": fixed,
            "columns": [c for c in COLUMNS if c != f"test/{score}" and any(c in r["numbers"] for r in rows)],
            "cells": rows,
            "damage": damage[:MAX_DAMAGE],
            "n_damage": len(damage),
        }

    def _state(self, folder: Path) -> tuple[ExperimentState, list[str]]:
        """The plan and its cells; without a plan that can be read, none."""
        nothing = ExperimentState(folder, folder.name, "", {}, [])
        for name in ("sweep.json", "ledger"):
            if self.places.leads_out(folder / name):
                return nothing, [f"{name}: {_OUT}"]
        if not (folder / "sweep.json").exists():
            return nothing, []
        try:
            state = state_of(folder)
        except AsrLabError as error:
            return nothing, [_without(folder, str(error))]
        except Exception as error:  # a plan of any shape: a page must not fail for it
            return nothing, [f"sweep.json: not a plan ({type(error).__name__}: {error})"]
        return state, [_without(folder, line) for line in state.damage if "/result.json:" not in line]

    def _row(self, folder: Path, cell: CellState, planned: bool) -> dict[str, Any]:
        name = cell.name
        home = folder / name
        if any(self.places.leads_out(path) for path in (str(home), *(f"{home}/{file}" for file in TELLING))):
            return _as_row(CellState(name, DAMAGED, {}, _OUT), None, planned)
        stamp = self.places.stamp(home / "result.json")
        found = self._results.get(home, stamp, lambda: summary(_read(home / "result.json"))) if stamp else None
        if found and found.damage:
            return _as_row(CellState(name, DAMAGED, cell.factors, found.damage), None, planned)
        if found and not cell.factors:  # no plan has it: its own files say how it is
            try:
                cell = cell_state(home, {})
            except (AsrLabError, OSError) as error:
                return _as_row(CellState(name, DAMAGED, {}, _without(folder, str(error))), None, planned)
        return _as_row(cell, found, planned)


def _as_row(cell: CellState, found: Summary | None, planned: bool) -> dict[str, Any]:
    own = {str(k): as_text(v) for k, v in cell.factors.items()}
    numbers = dict(found.numbers) if found else {}
    metric = cell.metric if isinstance(cell.metric, str) else found.score if found else "wer"
    score = _number(cell.score)
    if score is None and cell.state == "done":
        score = numbers.get(f"test/{metric}")
    row = {
        "name": cell.name,
        "state": cell.state,
        "reason": cell.reason or (found.reason if found and cell.state != "done" else ""),
        "planned": planned,
        "factors": (found.factors if found else {}) | own,
        "metric": metric,
        "score": score,
        "numbers": {k: v for k, v in numbers.items() if k != f"test/{metric}"},
        "finished": found.finished if found else "",
    }
    for key in ("epoch", "epochs", "step", "steps"):
        if cell.state != "done" and (value := _number(getattr(cell, key))) is not None:
            row[key] = int(value)
    if (eta := _rounded(_number(cell.eta_s))) is not None:
        row["eta_s"] = eta
    return row


def _swept(name: str, folder: Path, axes: Any, rows: list[dict[str, Any]]) -> list[str]:
    """Factors that differ between cells, as the report knows them."""
    cells = tuple(Cell(r["name"], r["state"], factors=r["factors"]) for r in rows if r["factors"])
    known = {str(k): [] for k in axes} if isinstance(axes, dict) else {}
    return swept_factors(Experiment(folder, name, "", "", known, cells, ()))


def _is(row: dict[str, Any]) -> bool:
    return row["score"] is not None and row["score"] == row["score"]


def _number(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and value == value  # noqa: PLR0124
    return value if usable and abs(value) < 1e15 else None


def _rounded(seconds: float | None) -> float | None:
    """Coarse, so that an answer does not change every second for it."""
    if seconds is None:
        return None
    step = 5 if seconds < 120 else 60
    return step * round(seconds / step)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _without(folder: Path, line: str) -> str:
    """A page may be shown where nobody should learn whose disk it came from."""
    return line.replace(f"{folder}/", "").replace(f"{folder.parent}/", "")
