"""`asr-lab status`: what has become of the cells of a sweep, once or live."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from asr_lab.errors import RunError, nearest

if TYPE_CHECKING:
    from rich.console import RenderableType

    from asr_lab.sweep.state import CellState, ExperimentState

# Told apart by shape, not by colour alone.
MARKS = {
    "done": ("✓", "green"),
    "running": ("▶", "cyan"),
    "queued": ("⋯", "blue"),
    "planned": ("·", "dim"),
    "preempted": ("‖", "yellow"),
    "failed": ("✗", "red"),
    "exploded": ("✸", "magenta"),
    "cancelled": ("⊘", "dim"),
}


def add(app: typer.Typer) -> None:
    app.command()(status)


def status(
    experiment: str = typer.Argument(None, help="Name under outputs/, or its folder. Without: all experiments."),
    watch: bool = typer.Option(False, "--watch", "-w", help="Stay, and show it anew every few seconds."),
    as_json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
    every: float = typer.Option(5.0, help="Seconds between two looks of --watch."),
    outputs: Path = typer.Option(Path("outputs"), help="Where experiments are."),
) -> None:
    """State, progress, score and time left of every cell, from the files alone.

    asr-lab status; asr-lab status smoke --watch; asr-lab status smoke --json
    """
    from rich.console import Console

    if as_json:
        found = _read(experiment, outputs)
        print(json.dumps([s.as_json() for s in found] if experiment is None else found[0].as_json()))
        return
    console = Console()
    if not watch:
        console.print(_shown(_read(experiment, outputs), experiment is not None))
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        try:
            while True:
                found = _read(experiment, outputs)
                live.update(_shown(found, experiment is not None), refresh=True)
                if not any(s.counts[k] for s in found for k in ("running", "queued", "planned", "preempted")):
                    break
                time.sleep(every)
        except KeyboardInterrupt:
            return
    console.print(_shown(found, experiment is not None))


def folder_of(experiment: str, outputs: Path = Path("outputs")) -> Path:
    """The folder of an experiment, given by name or folder.

    Raises:
        RunError: there is none; the nearest names are offered.
    """
    for folder in (Path(experiment), outputs / experiment):
        if (folder / "sweep.json").exists():
            return folder
    known = [p.parent.name for p in outputs.glob("*/sweep.json")]
    raise RunError(f"no sweep '{experiment}' in {outputs}{nearest(experiment, known) or '; none was launched yet'}")


def _read(experiment: str | None, outputs: Path) -> "list[ExperimentState]":
    from asr_lab.sweep.state import state_of

    if experiment is not None:
        return [state_of(folder_of(experiment, outputs))]
    folders = sorted(p.parent for p in outputs.glob("*/sweep.json"))
    if not folders:
        raise RunError(f"{outputs}: no sweep was launched yet; asr-lab sweep EXPERIMENT launches one")
    return [state_of(folder) for folder in folders]


def _shown(found: "list[ExperimentState]", matrix: bool) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for state in found:
        parts.append(Text.assemble((state.experiment, "bold"), "  ", _counts(state)))
        if matrix:
            if state.question:
                parts.append(Text(state.question, "italic"))
            parts += [_matrix(state), _legend(state)]
            parts += [Text(f"{c.name}: {c.state}: {c.reason}", "red") for c in _failures(state)]
        parts += [Text(line, "yellow") for line in state.damage]
    return Group(*parts)


def _counts(state: "ExperimentState") -> str:
    said = [f"{n} {name}" for name, n in state.counts.items() if n]
    left = "" if state.eta_s is None else f", about {_time(state.eta_s)} left"
    return f"{len(state.cells)} cells: {', '.join(said)}{left}"


def _matrix(state: "ExperimentState") -> "RenderableType":
    """A row for each configuration, a column for each seed"""
    from rich.table import Table
    from rich.text import Text

    axes = _axes(state)
    seeds = list(dict.fromkeys(c.factors.get("seed") for c in state.cells))
    rows: dict[tuple[str, ...], dict[Any, CellState]] = {}
    for cell in state.cells:
        rows.setdefault(tuple(_value(cell.factors.get(a)) for a in axes), {})[cell.factors.get("seed")] = cell
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for axis in axes:
        table.add_column(axis)
    for seed in seeds:
        table.add_column(f"seed {seed}")
    for row, cells in rows.items():
        table.add_row(*row, *(_cell(cells[s]) if s in cells else Text("") for s in seeds))
    return table


def _axes(state: "ExperimentState") -> list[str]:
    """Those of the grid, and what else tells cells apart that were launched with other overrides"""
    axes = [a for a in state.axes if a != "seed"]
    alike: dict[tuple[str, ...], list[CellState]] = {}
    for cell in state.cells:
        alike.setdefault(tuple(_value(cell.factors.get(a)) for a in (*axes, "seed")), []).append(cell)
    for cells in alike.values():
        for key in dict.fromkeys(k for c in cells for k in c.factors):
            if key not in axes and len({_value(c.factors.get(key)) for c in cells}) > 1:
                axes.append(key)
    return axes


def _cell(cell: "CellState") -> Any:
    from rich.text import Text

    from asr_lab.run import show_score

    mark, style = MARKS[cell.state]
    said = [mark]
    if cell.state in ("running", "preempted") and cell.epoch is not None:
        said.append(f"{cell.epoch}/{cell.epochs}" if cell.epochs and cell.epochs > 0 else f"epoch {cell.epoch}")
    if cell.score is not None:
        said.append(show_score(cell.metric or "wer", cell.score).removesuffix(" %"))
    if cell.eta_s is not None:
        said.append(_time(cell.eta_s))
    return Text(" ".join(said), style)


def _legend(state: "ExperimentState") -> Any:
    from rich.text import Text

    there = [name for name, n in state.counts.items() if n]
    return Text(
        "  ".join(f"{MARKS[name][0]} {name}" for name in there) + "  (scores: test, validation of a cell that runs)",
        "dim",
    )


def _failures(state: "ExperimentState") -> "list[CellState]":
    return [c for c in state.cells if c.state in ("failed", "exploded")][:10]


def _value(value: Any) -> str:
    return "" if value is None else str(value)


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"
