"""`asr-lab train`: Hydra's own command line over conf/."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer


def add(app: typer.Typer) -> None:
    app.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )(train)


def train(ctx: typer.Context) -> None:
    """Train one run, or with -m a multirun: any Hydra overrides and flags.

    asr-lab train data=an4 encoder=conformer clipping.threshold=0.5; asr-lab train -m seed=1,2,3; `asr-lab train --help`
    lists the choices, `--cfg job` prints the composed configuration, `-sc install=bash` prints the shell completion.
    """
    run_hydra(ctx.args)


def run_hydra(argv: list[str]) -> None:
    """Compose with Hydra from conf/ and run: in this process for one run, through a launcher for several."""
    import hydra

    from asr_lab import schema
    from asr_lab.paths import conf_dir
    from asr_lab.sweep.cell import register_resolvers

    # Hydra then hands its exceptions on, and the command line turns them into one line.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    schema.register()
    register_resolvers()
    if {"-m", "--multirun"} & set(argv):
        for part, ours in (("launcher", "local"), ("sweeper", "grid")):
            if not any(a.startswith(f"hydra/{part}=") for a in argv):
                argv = [*argv, f"hydra/{part}={ours}"]
    sys.argv = ["asr-lab", *argv]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(_job)()
    except _Failed as failed:
        raise failed.error from None
    except KeyboardInterrupt:  # said here: Typer would end without a word
        print("asr-lab: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def complete(argv: list[str]) -> int:
    """Answer Hydra's shell completion, which asks `asr-lab -sc query=SHELL` about the line `asr-lab train ...`."""
    line = os.environ.get("COMP_LINE", "")
    before, found, after = line.partition(" train ")
    if not found or before.split()[-1:] != ["asr-lab"]:
        return 0
    point = int(os.environ.get("COMP_POINT", len(line)))
    os.environ["COMP_LINE"] = f"asr-lab {after}"
    os.environ["COMP_POINT"] = str(max(0, point - len(line) + len(os.environ["COMP_LINE"])))
    run_hydra(argv)
    return 0


class _Failed(BaseException):
    """Carries an error past Hydra, which would print lines of its own about an Exception."""

    def __init__(self, error: Exception):
        self.error = error


def _job(cfg) -> float | None:
    """What Hydra calls for one composed configuration."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    try:
        return _run(cfg)
    except Exception as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # another launcher's job: the others go on
            raise
        raise _Failed(error) from None


def _run(cfg) -> float | None:
    from hydra.core.hydra_config import HydraConfig

    from asr_lab.sweep.cell import frozen

    hydra_cfg: Any = HydraConfig.get()
    run = frozen(cfg, hydra_cfg, Path(hydra_cfg.runtime.output_dir))
    if "WANDB_SWEEP_ID" in os.environ and run.is_done():
        from asr_lab.tracking.sync import tell_agent

        tell_agent(run)
    if cfg.trainer.devices == 1 or run.is_done():
        from asr_lab.process import stop_on_signals
        from asr_lab.train import train as train_here

        stop_on_signals()
        result = train_here(run)
    else:
        # Several devices: ranks start again from the frozen configuration, never through this command line.
        from asr_lab.train import FULL

        code = subprocess.call([sys.executable, "-m", "asr_lab.train", str(run.folder)])
        result = run.result() or {}
        if code:
            raise typer.Exit(2 if code == FULL else code)
    from asr_lab.sweep.pool import line

    print(line(run))
    print(run.folder)
    return result["metrics"].get(f"test/{run.score}")
