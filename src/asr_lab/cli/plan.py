"""`asr-lab plan`: what a sweep would run, how long it would take, and which part of it fits a budget."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from asr_lab.errors import ConfigError

if TYPE_CHECKING:
    from asr_lab.sweep.estimate import Estimate
    from asr_lab.sweep.fraction import Fraction
    from asr_lab.sweep.plan import Plan

SHOWN = 40  # lines of a table


def add(app: typer.Typer) -> None:
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(plan)


def plan(
    ctx: typer.Context,
    experiment: str = typer.Argument(help="Name of a YAML in experiments/, or its path; then Hydra overrides."),
    budget: str = typer.Option(None, help="A time such as 2h: propose the part of the grid that fits."),
    contrast: list[str] = typer.Option(
        None, help="What the part must tell apart: an axis, or several as encoder*clipping. Default: each axis."
    ),
    write: Path = typer.Option(None, help="With --budget: write the proposed experiment to this YAML."),
    measure: bool = typer.Option(True, help="Train a few batches of each architecture that no earlier run timed."),
    jobs: int = typer.Option(None, min=1, help="Cells at once; default: one a core."),
    as_json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """List the cells of a sweep without running it: cells left out and why, parameters, arithmetic, time.

    asr-lab plan smoke; asr-lab plan encoder_x_clipping --budget 2h --contrast encoder*clipping
    """
    from asr_lab.cli.sweep import location
    from asr_lab.sweep.estimate import estimates
    from asr_lab.sweep.fraction import fraction, seconds_of
    from asr_lab.sweep.local import n_cores
    from asr_lab.sweep.opened import plan_of

    budget_s = seconds_of(budget) if budget else None
    if write and not budget:
        raise ConfigError("--write writes what --budget proposes; give both")
    found = plan_of(location(experiment), ctx.args)
    times = estimates(found, measure)
    n_jobs = min(jobs or n_cores(), len(found.cells))
    part = None
    if budget_s is not None:
        seconds = [times[c.name].seconds for c in found.cells]
        if any(s is None for s in seconds):
            raise ConfigError("--budget: the time of some cells is not known; leave --no-measure out")
        part = fraction([c.cell for c in found.cells], [s or 0.0 for s in seconds], budget_s * n_jobs, contrast or ())
    if as_json:
        print(json.dumps(_as_json(found, times, n_jobs, part)))
    else:
        _print(found, times, n_jobs, part)
    if write and part:
        _write(write, experiment, found, part)


def _as_json(found: "Plan", times: "dict[str, Estimate]", n_jobs: int, part: "Fraction | None") -> dict[str, Any]:
    return {
        "experiment": found.experiment,
        "question": found.question,
        "cells": [
            {"name": c.name, "fingerprint": c.fingerprint, "values": c.cell, **times[c.name]._asdict()}
            for c in found.cells
        ],
        "excluded": [{"values": cell, "reason": reason} for cell, reason in found.excluded],
        "merged": found.merged,
        "jobs": n_jobs,
        "seconds": _total(found, times),
        "part": None
        if part is None
        else {
            "cells": [found.cells[i].name for i in part.kept],
            "seconds": part.seconds,
            "standard_errors": part.inflation,
        },
    }


def _total(found: "Plan", times: "dict[str, Estimate]") -> float | None:
    """Seconds of one process; None if some are not known"""
    seconds = [times[c.name].seconds for c in found.cells]
    return None if any(s is None for s in seconds) else sum(s or 0.0 for s in seconds)


def _print(found: "Plan", times: "dict[str, Estimate]", n_jobs: int, part: "Fraction | None") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if found.question:
        console.print(found.question, style="italic", soft_wrap=True)
    axes = [a for a in found.axes if a != "seed"]
    rows: dict[tuple[str, ...], list[Any]] = {}
    for cell in found.cells:
        rows.setdefault(tuple(str(cell.factors.get(a, "")) for a in axes), []).append(cell)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for axis in axes:
        table.add_column(axis)
    for name in ("cells", "parameters", "MACs/s", "time each", "known from"):
        table.add_column(name, justify="left" if name == "known from" else "right")
    for row, cells in list(rows.items())[:SHOWN]:
        own = times[cells[0].name]
        table.add_row(*row, str(len(cells)), _count(own.parameters), _count(own.macs), _time(own.seconds), own.source)
    console.print(table)
    if len(rows) > SHOWN:
        console.print(f"... and {len(rows) - SHOWN} more configurations")
    for reason, n in _reasons(found).items():
        console.print(f"{n} cells left out: {reason}", soft_wrap=True)
    if found.merged:
        console.print(f"{found.merged} cells left out: the same as another")
    total = _total(found, times)
    said = (
        "not known" if total is None else f"{_time(total)} of one process, about {_time(total / n_jobs)} with {n_jobs}"
    )
    console.print(f"{len(found.cells)} cells, {said}")
    if part:
        console.print(f"fits: {len(part.kept)} of {len(found.cells)} cells, about {_time(part.seconds / n_jobs)}")
        for contrast, times_longer in part.inflation.items():
            console.print(f"  {contrast}: standard errors {times_longer:.2f} times those of the whole grid")


def _reasons(found: "Plan") -> dict[str, int]:
    from collections import Counter

    return Counter(reason for _, reason in found.excluded)


def _write(path: Path, experiment: str, found: "Plan", part: "Fraction") -> None:
    """The experiment with the proposed cells, one by one, for its grid"""
    import yaml

    from asr_lab.cli.sweep import file_of
    from asr_lab.files import write_text

    body = yaml.safe_load(file_of(experiment).read_text())
    cells = [found.cells[i].cell for i in part.kept]
    body |= {"experiment": f"{found.experiment}_part", "grid": {"list": cells}}
    head = f"# {len(cells)} of {len(found.cells)} cells of {experiment}, chosen by asr-lab plan --budget.\n"
    write_text(path, head + yaml.safe_dump(body, sort_keys=False, allow_unicode=True))
    print(f"wrote {path}")


def _count(n: int | None) -> str:
    if n is None:
        return ""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= limit:
            return f"{n / limit:.3g} {unit}"
    return str(n)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
