"""`asr-lab clip-advice RUN`: what thresholds of gradient clipping would have done, from the norms a run recorded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from asr_lab.gradients.groups import Advice, Choices
    from asr_lab.run import Run

# The thresholds that toolkits and papers have as defaults.
USUAL = (0.3, 0.5, 1.0, 5.0, 10.0, 50.0)


def add(app: typer.Typer) -> None:
    app.command(name="clip-advice")(clip_advice)


def clip_advice(
    run: str = typer.Argument(help="A run, or an experiment: its folder, or its name under the outputs folder."),
    threshold: list[float] = typer.Option([], help="Threshold of the global norm to judge; may be repeated."),
    percentiles: str = typer.Option("10,50,75,90,95,99,99.9", help="Percentiles of norms for the suggested grid."),
    by: str = typer.Option(
        "", help="Of an experiment: the factor whose values are judged one by one; encoder, model or landscape if none."
    ),
    skip_first: int = typer.Option(0, help="Leave out so many steps at the beginning, such as a warm-up."),
    plot: Path | None = typer.Option(None, help="Draw norms and shares of clipped steps, into this picture."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
) -> None:
    """Say which clipping thresholds would have been a safety net, a limiter of steps, or inert.

    asr-lab clip-advice my_experiment --percentiles 50,90,99 --plot norms.png
    """
    import json
    import math
    import sys

    from asr_lab.errors import DataError

    wanted = _percentiles(percentiles)
    for t in threshold:
        if not (t > 0 and math.isfinite(t)):
            raise DataError(f"--threshold {t}: a threshold is positive and finite")
    if skip_first < 0:
        raise DataError(f"--skip-first {skip_first}: wanted is a number of steps")
    if plot:
        from asr_lab.inspect.pictures import check_picture

        check_picture("--plot", plot)
    from asr_lab.gradients.groups import groups

    runs = _runs(run, outputs)
    by = by or next(k for k in ("encoder", "model", "landscape") if k in runs[0].factors)
    values = sorted({*threshold, *USUAL})
    found = [group.advice(wanted, values, _choices()) for group in groups(runs, by, skip_first)]
    if plot:
        from asr_lab.gradients.advice_picture import draw

        # Before pages of numbers; on stderr, because stdout may be JSON.
        print(f"wrote {draw(plot, [advice.group for advice in found], values)}", file=sys.stderr)
    if as_json:
        print(json.dumps({"by": by if len(runs) > 1 else None, "groups": [a.as_json() for a in found]}, indent=1))
    else:
        _show(found, by, values)


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


def _choices() -> "Choices":
    from functools import partial

    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from asr_lab.paths import conf_dir

    files = sorted((conf_dir() / "clipping").glob("*.yaml"))
    return {f.stem: partial(instantiate, OmegaConf.load(f)) for f in files if f.stem != "none"}


def _show(found: list["Advice"], by: str, values: list[float]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if len(found) == 1:
        _show_one(found[0], console)
    else:
        _show_several(found, by, values, console)
    console.print("Norms are those of weights that moved as they did: with another threshold they would be others.")


def _show_one(advice: "Advice", console: Any) -> None:
    runs = advice.group.runs
    if len(runs) == 1:
        did = runs[0].did
        console.print(
            f"clipping={did['clipping']} was {_article(did['role'])}: {_percent(did['clipped'])} % of steps clipped, "
            f"{_percent(did['kept'])} % of their length kept on average, {_percent(did['skipped'])} % left out."
        )
    n = len(runs)
    console.print(f"{len(advice.group.norms)} steps of {n} run{'s' * (n > 1)}; norms before clipping, percentiles:")
    console.print("  " + "  ".join(f"{p} %: {v:.3g}" for p, v in advice.percentiles.items()))
    rows = [
        (f"{t.value:g}{' *' * (t.value in advice.grid)}", _percent(t.clipped), _percent(t.kept), t.role)
        for t in advice.thresholds
    ]
    headings = ("threshold", "clipped %", "length kept %", "role")
    console.print(_table("Thresholds of the global norm (clipping=norm)", headings, rows))
    console.print(f"* at a percentile; as a grid: {_grid(advice)}")
    rows = [(r.name, _percent(r.clipped), _percent(r.kept), f"{r.longest:.3g}", r.role, r.how) for r in advice.replays]
    headings = ("clipping", "clipped %", "length kept %", "longest step", "role", "from")
    title = f"Every choice as its YAML has it, on the steps of {advice.group.example.run.name}"
    console.print(_table(title, headings, rows))
    if advice.not_recorded:
        console.print(f"Not in this record: what {', '.join(advice.not_recorded)} look at.")


def _show_several(found: list["Advice"], by: str, values: list[float], console: Any) -> None:
    headings = [by, "runs", "steps", *(f"{p} %" for p in found[0].percentiles)]
    rows = [
        [a.group.name, str(len(a.group.runs)), str(len(a.group.norms)), *(f"{v:.3g}" for v in a.percentiles.values())]
        for a in found
    ]
    console.print(_table("Norms before clipping, percentiles", headings, rows))
    for a in found:
        console.print(f"{a.group.name}, as a grid: {_grid(a)}")
    names = [a.group.name for a in found]
    judged = [{t.value: t for t in a.thresholds} for a in found]
    rows = [[f"{v:g}", *(f"{_percent(of[v].clipped)} {of[v].role}" for of in judged)] for v in values]
    console.print(_table("Steps clipped % by a threshold of the global norm", ["threshold", *names], rows))
    replays = [{r.name: r for r in a.replays} for a in found]
    rows = [
        [name, *(f"{_percent(of[name].clipped)} / {_percent(of[name].kept)}" if name in of else "–" for of in replays)]
        for name in dict.fromkeys(name for of in replays for name in of)
    ]
    title = "Steps clipped % / mean length kept %: every choice as its YAML has it, on one run of each"
    console.print(_table(title, ["clipping", *names], rows))


def _table(title: str, headings: Any, rows: Any) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, heading in enumerate(headings):
        numbers = all(row[i][:1].isdigit() and row[i][-1:].isdigit() for row in rows)
        table.add_column(heading, justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _grid(advice: "Advice") -> str:
    return "clipping.threshold=" + ",".join(f"{v:g}" for v in advice.grid)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _article(role: str) -> str:
    return {"safety net": "a safety net", "limiter": "a limiter"}.get(role, role)
