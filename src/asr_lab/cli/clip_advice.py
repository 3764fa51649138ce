"""`asr-lab clip-advice RUN`: what thresholds of gradient clipping would have done, from the norms a run recorded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from asr_lab.run import Run

# The thresholds that toolkits and papers have as defaults.
USUAL = (0.3, 0.5, 1.0, 5.0, 10.0, 50.0)
# They look at weights or at single elements, which are not recorded.
NOT_FROM_NORMS = ("agc", "none", "per_layer", "per_parameter", "shear", "value", "value_norm")


def add(app: typer.Typer) -> None:
    app.command(name="clip-advice")(clip_advice)


def clip_advice(
    run: str = typer.Argument(help="A run, or an experiment: its folder, or its name under the outputs folder."),
    threshold: list[float] = typer.Option([], help="Threshold of the global norm to judge; may be repeated."),
    percentiles: str = typer.Option("10,50,75,90,95,99,99.9", help="Percentiles of norms for the suggested grid."),
    skip_first: int = typer.Option(0, help="Leave out so many steps at the beginning, such as a warm-up."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
) -> None:
    """Say which clipping thresholds would have been a safety net, a limiter of steps, or inert.

    asr-lab clip-advice outputs/my_experiment --percentiles 50,90,99
    """
    import json

    import numpy as np
    from rich.console import Console

    from asr_lab.errors import DataError
    from asr_lab.gradients.advice import replays, suggested, thresholds
    from asr_lab.gradients.record import read_record

    wanted = _percentiles(percentiles)
    if any(not t > 0 for t in threshold):
        raise DataError(f"--threshold {min(threshold)}: a threshold is positive")
    if skip_first < 0:
        raise DataError(f"--skip-first {skip_first}: wanted is a number of steps")
    runs = _runs(run, outputs)
    norms = []
    for found in runs:
        record = read_record(found.folder / "gradients.npz")
        of_run = record.column("norm_before")[record.steps >= skip_first]
        norms.append(of_run[np.isfinite(of_run) & (of_run > 0)])
    pooled = np.concatenate(norms).astype(np.float64)
    if not len(pooled):
        raise DataError(f"{run}: no finite gradient norm was recorded after step {skip_first}")
    grid = suggested(pooled, wanted)
    known = thresholds(pooled, sorted({*threshold, *USUAL, *grid}))
    answer: dict[str, Any] = {
        "runs": [found.name for found in runs],
        "steps": len(pooled),
        "percentiles": {str(p): float(np.percentile(pooled, p)) for p in wanted},
        "grid": grid,
        "thresholds": [t._asdict() for t in known],
        # Choices with a memory see the steps of one training in their order.
        "replay": [r._asdict() for r in replays(_choices(), norms[0].astype(np.float64))],
    }
    if as_json:
        print(json.dumps(answer, indent=1))
    else:
        _show(answer, Console())


def _percentiles(text: str) -> list[float]:
    from asr_lab.errors import DataError

    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [-1.0]
    if not all(0 <= p <= 100 for p in found):
        raise DataError(f"--percentiles {text}: wanted are numbers between 0 and 100, separated by commas")
    return found


def _runs(name: str, outputs: Path) -> list["Run"]:
    from asr_lab.errors import RunError
    from asr_lab.run import Run, find_run

    folder = next((f for f in (Path(name), outputs / name) if f.is_dir() and not (f / "config.yaml").exists()), None)
    if folder is None:
        return [find_run(name, outputs, kind=None)]
    found = [Run.open(p.parent) for p in sorted(folder.glob("*/gradients.npz"))]
    if not found:
        raise RunError(f"{folder}: no run in it has recorded its gradients; train with gradients=record")
    return found


def _choices() -> dict[str, Any]:
    from functools import partial

    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from asr_lab.paths import conf_dir

    files = sorted((conf_dir() / "clipping").glob("*.yaml"))
    return {f.stem: partial(instantiate, OmegaConf.load(f)) for f in files if f.stem not in NOT_FROM_NORMS}


def _show(answer: dict[str, Any], console: Any) -> None:
    from rich.table import Table

    runs = answer["runs"]
    console.print(
        f"{answer['steps']} steps of {len(runs)} run{'s' * (len(runs) > 1)}; norms before clipping, percentiles:"
    )
    console.print("  " + "  ".join(f"{p} %: {v:.3g}" for p, v in answer["percentiles"].items()), highlight=False)
    table = Table(title="Thresholds of the global norm (clipping=norm)")
    for column in ("threshold", "steps clipped %", "mean length kept %", "role"):
        table.add_column(column, justify="left" if column == "role" else "right")
    for t in answer["thresholds"]:
        mark = " *" if t["value"] in answer["grid"] else ""
        table.add_row(f"{t['value']:g}{mark}", f"{100 * t['clipped']:.1f}", f"{100 * t['kept']:.1f}", t["role"])
    console.print(table)
    console.print("* at a percentile; as a grid: clipping.threshold=" + ",".join(f"{v:g}" for v in answer["grid"]))
    table = Table(title=f"Every choice as its YAML has it, on the norms of {runs[0]}")
    for column in ("clipping", "steps clipped %", "mean length kept %", "longest step", "role"):
        table.add_column(column, justify="left" if column in ("clipping", "role") else "right")
    for r in answer["replay"]:
        row = (f"{100 * r['clipped']:.1f}", f"{100 * r['kept']:.1f}", f"{r['longest']:.3g}", r["role"])
        table.add_row(r["name"], *row)
    console.print(table)
    console.print("Norms are those of weights that moved as they did: with another threshold they would be others.")
