"""`asr-lab wandb`: what concerns a whole experiment at Weights & Biases."""

from pathlib import Path

import typer

EXPERIMENT = typer.Argument(help="Name of an experiment under the outputs folder, or its folder.")
OUTPUTS = typer.Option(Path("outputs"), help="Where experiments are.")
PROJECT = typer.Option(None, help="Project at W&B; without it that of the runs' configuration.")
INIT = typer.Option(30.0, min=0.1, help="Seconds for the service to answer.")


def add(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Weights & Biases: send, summarise, sweep and show an experiment.")
    for command in (sync,):
        group.command()(command)
    app.add_typer(group, name="wandb")


def sync(
    experiment: str = EXPERIMENT,
    project: str | None = PROJECT,
    artifacts: bool = typer.Option(True, help="Also the best checkpoints, as artifacts."),
    init_timeout_s: float = INIT,
    run_timeout_s: float = typer.Option(300.0, min=1, help="Seconds that one run may take."),
    as_json: bool = typer.Option(False, "--json", help="Print what was done as JSON."),
    outputs: Path = OUTPUTS,
) -> None:
    """Send what is not there yet: runs logged offline, or cut off from the service. It can be broken off and repeated.

    What the service has of a run is asked of the service. The rest comes from the folder that the client wrote offline,
    where there is one, and from the run's own files. Exit status 2 where the service does not answer.

    asr-lab wandb sync encoder_x_clipping
    """
    import json

    from asr_lab.errors import RunError
    from asr_lab.tracking.sync import Limits, as_rows, experiment_folder, sync as all_of  # fmt: skip

    folder = experiment_folder(experiment, outputs)
    done = []
    for item in all_of(folder, project, artifacts, Limits(init_timeout_s, run_timeout_s)):
        done.append(item)
        if not as_json:
            print(f"{item.cell}: {item.did}" + (f" ({item.how})" if item.how else ""), flush=True)
    if as_json:
        print(json.dumps(as_rows(done), indent=1))
    left = [item for item in done if item.did == "not complete"]
    if left:
        raise RunError(f"{len(left)} of {len(done)} runs are not complete at W&B ({left[0].how}); run it again")
