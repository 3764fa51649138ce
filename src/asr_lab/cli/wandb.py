"""`asr-lab wandb`: what concerns a whole experiment at Weights & Biases."""

from pathlib import Path

import typer

EXPERIMENT = typer.Argument(help="Name of an experiment under the outputs folder, or its folder.")
OUTPUTS = typer.Option(Path("outputs"), help="Where experiments are.")
PROJECT = typer.Option(None, help="Project at W&B; without it that of the runs' configuration.")
INIT = typer.Option(30.0, min=0.1, help="Seconds for the service to answer.")


def add(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Weights & Biases: send, summarise, sweep and show an experiment.")
    for command in (sync, summary, workspace):
        group.command()(command)
    group.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(sweep)
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
    from asr_lab.tracking.sync import Limits, as_rows, experiment_folder
    from asr_lab.tracking.sync import sync as all_of

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


def summary(
    experiment: str = EXPERIMENT,
    project: str | None = PROJECT,
    init_timeout_s: float = INIT,
    finish_timeout_s: float = typer.Option(120.0, min=1, help="Seconds for the uploads."),
    outputs: Path = OUTPUTS,
) -> None:
    """Write the report and send it with the leaderboard: a run of the job type `summary` in the experiment's group.

    asr-lab wandb summary encoder_x_clipping
    """
    from asr_lab.tracking.summary import send_summary
    from asr_lab.tracking.sync import experiment_folder, project_in

    folder = experiment_folder(experiment, outputs)
    print(send_summary(folder, project or project_in(folder), init_timeout_s, finish_timeout_s))


def sweep(
    ctx: typer.Context,
    experiment: str = typer.Argument(help="Name of a YAML in experiments/ (yours or a packaged one), or its path."),
    method: str = typer.Option("grid", help="grid, random or bayes."),
    product: bool = typer.Option(False, "--product", help="Multiply the axes even if the experiment leaves cells out."),
    create: bool = typer.Option(False, "--create", help="Register the sweep and print how to start an agent."),
    project: str = typer.Option("asr_lab", help="Project at W&B, for --create."),
) -> None:
    """Print an experiment's grid as a sweep of W&B, whose agents run `asr-lab train`; further arguments are overrides.

    asr-lab wandb sweep encoder_x_clipping > sweep.yaml && wandb sweep sweep.yaml

    asr-lab wandb sweep encoder_x_clipping --create
    """
    import yaml

    from asr_lab.cli.sweep import location
    from asr_lab.sweep.wandb_sweep import sweep_config

    config = sweep_config(location(experiment), ctx.args, method, product)
    if not create:
        print(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), end="")
        return
    from asr_lab.tracking.sync import register_sweep

    print(f"wandb agent {register_sweep(config, project)}")


def workspace(
    experiment: str = EXPERIMENT,
    project: str | None = PROJECT,
    outputs: Path = OUTPUTS,
) -> None:
    """Save a view of the experiment in the project's workspace: its runs, curves, costs and tables. Prints its address.

    Needs the extra `wandb-workspaces`.
    """
    from asr_lab.tracking.sync import experiment_folder, project_in
    from asr_lab.tracking.workspace import save_workspace

    folder = experiment_folder(experiment, outputs)
    print(save_workspace(folder, project or project_in(folder)))
