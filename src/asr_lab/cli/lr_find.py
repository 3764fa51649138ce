"""`asr-lab lr-find`: which learning rates a configuration bears."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from asr_lab.gradients.range_test import Advice, RangeTest

CONFIGS = ("config", "lm")
N_ROWS = 16


def add(app: typer.Typer) -> None:
    app.command(name="lr-find")(lr_find)


def lr_find(
    overrides: list[str] = typer.Argument(None, help="Hydra overrides, as of train.", show_default=False),
    config_name: str = typer.Option("config", help="config (speech recognition) or lm (language models)."),
    min_lr: float = typer.Option(1e-6, help="The first learning rate."),
    max_lr: float = typer.Option(10.0, help="The last one, if the loss does not explode before."),
    steps: int = typer.Option(100, help="Steps from the first to the last."),
    plot: Path | None = typer.Option(None, help="Draw the loss over the learning rate."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Train a few steps with a growing learning rate and say which ones are worth a try; leaves no run.

    asr-lab lr-find data=an4 encoder=bilstm optimizer=sgd --plot lr.png
    """
    import sys

    from asr_lab.cli.compose import composed
    from asr_lab.errors import ConfigError, nearest
    from asr_lab.gradients.range_test import MIN_STEPS, advise
    from asr_lab.inspect.pictures import check_picture

    if config_name not in CONFIGS:
        raise ConfigError(f"--config-name {config_name}: no such configuration{nearest(config_name, CONFIGS)}")
    if not 0 < min_lr < max_lr < float("inf"):
        raise ConfigError(
            f"--min-lr {min_lr:g} --max-lr {max_lr:g}: wanted are positive numbers, the first one smaller"
        )
    if steps < MIN_STEPS:
        raise ConfigError(f"--steps {steps}: at least {MIN_STEPS} are needed to see where a noisy loss falls")
    check_picture("--plot", plot)
    config = composed(overrides or [], config_name)

    from asr_lab.lr_find import range_test

    test = range_test(config, min_lr, max_lr, steps)
    advice = advise(test)
    source = " ".join(overrides or []) or config_name
    if plot:
        from asr_lab.gradients.pictures import draw_range_test

        print(f"wrote {draw_range_test(plot, test, advice, source)}", file=sys.stderr)
    if as_json:
        import json

        print(json.dumps(_answer(test, advice), indent=1))
    else:
        _show(test, advice)


def _answer(test: "RangeTest", advice: "Advice") -> dict[str, Any]:
    return {
        "steepest": advice.steepest,
        "tenth_of_lowest": advice.tenth,
        "lowest": advice.lowest,
        "diverged": test.diverged,
        "note": advice.note,
        "lr": test.lrs.tolist(),
        "loss": test.losses.tolist(),
        "smoothed": advice.smoothed.tolist(),
    }


def _show(test: "RangeTest", advice: "Advice") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("learning rate", "loss", "smoothed"):
        table.add_column(column, justify="right")
    every = -(-len(test.losses) // N_ROWS)
    for i in range(0, len(test.losses), every):
        table.add_row(f"{test.lrs[i]:.2e}", f"{test.losses[i]:.4f}", f"{advice.smoothed[i]:.4f}")
    console.print(table)
    ended = "the loss exploded" if test.diverged else "all steps were taken"
    console.print(f"{len(test.losses)} steps; {ended} at {test.lrs[-1]:.2g}.", highlight=False)
    if advice.lowest is not None:
        lines = (
            f"optimizer.lr={advice.steepest:.2g}  where the loss falls fastest",
            f"optimizer.lr={advice.tenth:.2g}  a tenth of {advice.lowest:.2g}, the largest before the loss rises",
        )
        for line in lines:
            console.print(line, highlight=False)
    if advice.note:
        console.print(f"Note: {advice.note}.", highlight=False)
