"""`asr-lab sweep EXPERIMENT`: the grid of one question, only what is missing."""

from pathlib import Path

import typer

from asr_lab.errors import ConfigError, nearest
from asr_lab.paths import experiment_dirs


def add(app: typer.Typer) -> None:
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(sweep)


def sweep(
    ctx: typer.Context,
    experiment: str = typer.Argument(help="Name of a YAML in experiments/ (yours or a packaged one), or its path."),
) -> None:
    """Run every cell of an experiment that is not done yet; further arguments are Hydra overrides.

    asr-lab sweep smoke; asr-lab sweep encoder_x_clipping encoder=conformer seed=1,2 trainer.max_epochs=5
    """
    from asr_lab.cli.train import run_hydra

    looking = {"--cfg", "-c", "--info", "-i", "--hydra-help"} & set(ctx.args)  # at one cell, without running any
    run_hydra([*location(experiment), *([] if looking else ["-m"]), *ctx.args])


def location(experiment: str) -> list[str]:
    """Hydra's flags for an experiment given by name or path.

    Raises:
        ConfigError: there is none of that name; the nearest ones are offered.
    """
    path = Path(experiment)
    if path.suffix in (".yaml", ".yml") and path.exists():
        return ["--config-dir", str(path.resolve().parent), "--config-name", path.stem]
    if experiment not in experiments():
        raise ConfigError(f"no experiment '{experiment}'{nearest(experiment, experiments())}")
    return ["--config-name", experiment]


def experiments() -> list[str]:
    """Names of all experiments, the user's and the packaged ones."""
    return sorted({p.stem for folder in experiment_dirs() for p in folder.glob("*.yaml")})
