"""`asr-lab gradients RUN`: how far gradients reached through time in a run's recurrent layers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from asr_lab.gradients.through_time import ThroughTime

HALF, HUNDREDTH, HUNDREDFOLD = 0.5, 0.01, 100.0


def add(app: typer.Typer) -> None:
    app.command()(gradients)


def gradients(
    run: str = typer.Argument(help="A run's folder, or the beginning of its cell name or fingerprint."),
    plot: Path | None = typer.Option(None, help="Draw the gain over the lag, at the beginning and at the end."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON: every lag of every step that was looked at."),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
) -> None:
    """Say at which lag gradients through time have vanished or exploded, in each recurrent layer of an encoder.

    asr-lab gradients outputs/adhoc/my_run --plot through_time.png
    """
    import json
    import sys

    from asr_lab.errors import DataError
    from asr_lab.gradients.through_time import read_through_time
    from asr_lab.inspect.pictures import check_picture
    from asr_lab.run import find_run

    check_picture("--plot", plot)
    folder = find_run(run, outputs).folder
    found = read_through_time(folder / "through_time.npz")
    if not len(found.steps):
        raise DataError(f"{folder}: gradients were not followed at any step")
    if plot:
        from asr_lab.gradients.pictures import draw_through_time

        print(f"wrote {draw_through_time(plot, found, folder.name)}", file=sys.stderr)
    if as_json:
        print(json.dumps({"run": folder.name, "cells": _rows(found, range(len(found.steps)))}, indent=1))
    else:
        _show(found)


def _rows(found: "ThroughTime", looks: Any) -> list[dict[str, Any]]:
    """One a cell and look; a gain of 0 has no logarithm, which is null in JSON"""
    import numpy as np

    from asr_lab.gradients.through_time import reach

    rows = []
    for c, name in enumerate(found.cells):
        for look in looks:
            logs = found.logs[look, c].astype(np.float64)
            rows.append(
                {
                    "cell": name,
                    "step": int(found.steps[look]),
                    "half_at_lag": reach(logs, HALF),
                    "hundredth_at_lag": reach(logs, HUNDREDTH),
                    "hundredfold_at_lag": reach(logs, HUNDREDFOLD),
                    "log10_gain": [round(x / np.log(10), 4) if np.isfinite(x) else None for x in logs.tolist()],
                }
            )
    return rows


def _show(found: "ThroughTime") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    n_lags = found.logs.shape[2] - 1
    looks = sorted({0, len(found.steps) - 1})
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("recurrent cell", "step", "below 1/2", "below 1/100", "above 100", f"at lag {n_lags}"):
        table.add_column(column, justify="left" if column == "recurrent cell" else "right", overflow="fold")
    for row in _rows(found, looks):
        lags = [row[key] for key in ("half_at_lag", "hundredth_at_lag", "hundredfold_at_lag")]
        last = row["log10_gain"][-1]
        end = "-" if last is None else f"{10**last:.2g}" if abs(last) < 5 else f"1e{last:+.0f}"
        cells = ["-" if lag is None else str(lag) for lag in lags]
        table.add_row(row["cell"].removeprefix("encoder."), str(row["step"]), *cells, end)
    console = Console()
    console.print(f"A gradient of norm 1 at a frame's output, up to {n_lags} frames earlier:", highlight=False)
    console.print(table)
    console.print("below, above: the first lag at which its norm is, in encoder frames; -: at none.", highlight=False)
