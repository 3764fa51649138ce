"""`asr-lab evaluate RUN`: score a finished run's checkpoint, as it decodes or with other ways of decoding."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from asr_lab.run import Run


def add(app: typer.Typer) -> None:
    app.command()(evaluate)


def evaluate(
    run: str = typer.Argument(help="A run's folder, or the beginning of its cell name or fingerprint."),
    overrides: list[str] = typer.Argument(
        None, help="Hydra overrides of decoding and lm: decoding.beam=8, lm=ngram.", show_default=False
    ),
    split: list[str] = typer.Option(["test"], help="Split to score; may be repeated."),
    checkpoint: str = typer.Option("best", help="best or last."),
    multirun: bool = typer.Option(
        False, "-m", "--multirun", help="Every combination on val, the best one then on --split."
    ),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
) -> None:
    """Score a run's checkpoint on splits; hypotheses go to evaluate/ in its folder, result.json stays as it is.

    asr-lab evaluate RUN decoding.beam=1,4,16 -m
    """
    from asr_lab.errors import ConfigError
    from asr_lab.run import find_run

    found, changes = find_run(run, outputs), overrides or []
    if changes:
        from asr_lab.evaluate.overrides import is_sweep

        multirun = is_sweep(changes) or multirun
    elif multirun:
        raise ConfigError("-m: nothing to choose from; list values, such as decoding.beam=1,4,16")
    import torch

    from asr_lab.process import keep_freed_memory, n_threads

    keep_freed_memory()
    torch.set_num_threads(n_threads(found.config["runtime"]["n_threads"]))
    if multirun:
        _sweep(found, changes, split, checkpoint)
    elif changes:
        _one(found, changes, split, checkpoint)
    else:
        from asr_lab.evaluate import evaluate as score

        for name, scores in score(found, split, checkpoint).items():
            print(_line(found, name, scores, f"loss {scores['loss']:.4f}", checkpoint))
        print(found.folder / "evaluate")


def _line(run: "Run", split: str, scores: dict[str, Any], more: str, checkpoint: str) -> str:
    rates = sorted(("wer", "cer"), key=lambda k: k != run.score)
    values = "  ".join(f"{k} {100 * scores[k]:.2f} %" for k in rates)
    return f"{split}  {values}  {more}  ({scores['utterances']:.0f} utterances, {checkpoint})"


def _one(run: "Run", overrides: list[str], splits: list[str], checkpoint: str) -> None:
    from asr_lab.evaluate import check_splits
    from asr_lab.evaluate.cell import Cell, Opened

    source = Opened(run, checkpoint)
    cell = Cell.of(source, overrides)
    check_splits(run, source.parts, splits)
    for split in splits:
        scores = cell.scores(split)
        print(_line(run, split, scores, f"search {scores['real_time_factor']:.4f} of real time", checkpoint))
    print(cell.folder)


def _sweep(run: "Run", overrides: list[str], splits: list[str], checkpoint: str) -> None:
    from rich.console import Console

    from asr_lab.evaluate.sweep import sweep

    err = Console(stderr=True)

    def done(cell: Any, scores: dict[str, Any]) -> None:
        said = f"{' '.join(cell.overrides)}  val {run.score} {100 * scores[run.score]:.2f} %"
        err.print(said, highlight=False, markup=False, soft_wrap=True)

    path, answer = sweep(run, overrides, splits, checkpoint, done)
    Console().print(_table(answer))
    for split, found in answer["splits"].items():
        print(_beside(answer, split, found))
    print(path)


def _table(answer: dict[str, Any]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from asr_lab.report.formats import between, percent
    from asr_lab.report.stats import Interval

    rate = answer["score"].upper()
    out = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    values = [dict(o.split("=", 1) for o in cell["overrides"]) for cell in answer["cells"]]
    changing = [k for k in values[0] if len({v[k] for v in values}) > 1] or list(values[0])
    short = {k: k.rpartition(".")[2] for k in changing}
    names = [short[k] if list(short.values()).count(short[k]) == 1 else k for k in changing]
    numbers = [f"{answer['tuned_on']} {rate} % (95 %)", "real-time factor", "MB"]
    for name in [*names, *numbers, ""]:
        out.add_column(Text(name), justify="right" if name in numbers else "left", overflow="fold")
    for i, (cell, value) in enumerate(zip(answer["cells"], values, strict=True)):
        row = [
            *(value[k] for k in changing),
            f"{percent(cell[answer['score']])} ({between(Interval(*cell['interval']))})",
            f"{cell['real_time_factor']:.4f}",
            f"{cell['peak_memory_mb']:.0f}",
            "chosen" if i == answer["chosen"] else "tied" if cell["tied"] else "",
        ]
        out.add_row(*map(Text, row), style="bold" if i == answer["chosen"] else "")
    return out


def _beside(answer: dict[str, Any], split: str, found: dict[str, Any]) -> str:
    from asr_lab.report.formats import between, percent
    from asr_lab.report.stats import Interval

    rate = answer["score"].upper()
    mine = Interval(*found["interval"])
    said = f"{split} {rate} {percent(mine.value)} % ({between(mine)}) with {' '.join(_chosen(answer))}"
    if found["run"] is None:
        return f"{said}; the run has no hypotheses of {split} to compare with"
    own, difference = Interval(*found["run"]), Interval(*found["difference"])
    return (
        f"{said}; the run's own {percent(own.value)} % ({between(own)}); difference {percent(difference.value, True)} "
        f"({between(difference, True)})"
    )


def _chosen(answer: dict[str, Any]) -> list[str]:
    return answer["cells"][answer["chosen"]]["overrides"]
