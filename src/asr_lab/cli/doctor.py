"""`asr-lab doctor`: would this sweep run?"""

import json

import typer


def add(app: typer.Typer) -> None:
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(doctor)


def doctor(
    ctx: typer.Context,
    experiment: str = typer.Argument(help="Name of a YAML in experiments/, or its path; then Hydra overrides."),
    jobs: int = typer.Option(None, min=1, help="Cells at once; default: one a core."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Look for whatever would stop the cells of a sweep; exit status 2 if there is something.

    Data, transcripts and the tokenizer, frames that subsampling leaves, one batch of each architecture forward and
    backward, memory, disk, the launcher.

    asr-lab doctor smoke; asr-lab doctor encoder_x_clipping hydra/launcher=slurm hydra.launcher.partition=gpu
    """
    from rich.console import Console
    from rich.text import Text

    from asr_lab.cli.sweep import location
    from asr_lab.sweep.doctor import examine
    from asr_lab.sweep.local import n_cores
    from asr_lab.sweep.opened import launcher_of, plan_of

    flags = location(experiment)
    plan = plan_of(flags, ctx.args)
    found, console = [], Console(highlight=False)
    marks = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}
    for finding in examine(plan, launcher_of(flags, ctx.args), min(jobs or n_cores(), len(plan.cells))):
        found.append(finding)
        if not as_json:
            mark, style = marks[finding.level]
            n = f" ({finding.cells} cells)" if finding.cells > 1 else ""
            console.print(Text.assemble((mark, style), f" {finding.what}{n}: {finding.detail}"), soft_wrap=True)
    n_errors = sum(f.level == "error" for f in found)
    if as_json:
        print(json.dumps({"ok": n_errors == 0, "findings": [f._asdict() for f in found]}))
    else:
        console.print(f"{len(plan.cells)} cells, {n_errors or 'no'} errors" if n_errors != 1 else "1 error")
    if n_errors:
        raise typer.Exit(2)
