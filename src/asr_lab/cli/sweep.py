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

    asr-lab sweep smoke; asr-lab sweep encoder_x_clipping encoder=conformer seed=1,2 trainer.max_epochs=5;
    asr-lab sweep smoke hydra/launcher=slurm

    --retry-failed[=N] runs cells that failed again, each up to N times (1); --rerun runs all again, the old runs stay
    beside the new; --allow-drift goes on although the code has changed since other cells were done.
    """
    from asr_lab.cli.train import run_hydra

    looking = {"--cfg", "-c", "--info", "-i", "--hydra-help"} & set(ctx.args)  # at one cell, without running any
    arguments = [a for arg in ctx.args for a in _flag(arg)]
    run_hydra([*location(experiment), *([] if looking else ["-m"]), *arguments])


def _flag(argument: str) -> list[str]:
    """Our own flags as overrides of Hydra's"""
    name, given, value = argument.partition("=")
    if name == "--retry-failed":
        if given and not value.isdigit():
            raise ConfigError(f"--retry-failed={value}: a count of tries is wanted")
        return [f"hydra.sweeper.retry_failed={value or 1}"]
    known = {"--rerun": ["runtime.rerun=true"], "--allow-drift": ["hydra.sweeper.allow_drift=true"]}
    return known.get(argument, [argument])


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


def file_of(experiment: str) -> Path:
    """The YAML of an experiment given by name or path. Raises as `location`."""
    options = location(experiment)
    folders = [Path(options[1])] if options[0] == "--config-dir" else experiment_dirs()
    return next(path for folder in folders if (path := folder / f"{options[-1]}.yaml").exists())


def experiments() -> list[str]:
    """Names of all experiments, the user's and the packaged ones."""
    return sorted({p.stem for folder in experiment_dirs() for p in folder.glob("*.yaml")})
