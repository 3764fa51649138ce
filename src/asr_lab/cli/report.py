"""`asr-lab report EXPERIMENT`: tables, intervals and curves from the files of its runs."""

from pathlib import Path

import typer


def add(app: typer.Typer) -> None:
    app.command()(report)


def report(
    experiment: str = typer.Argument(help="Name of an experiment under the outputs folder, or its folder."),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
) -> None:
    """Write report.md, report.html and results.csv beside the runs and print the table."""
    from rich.console import Console

    from asr_lab.report.render import render, table

    folder = Path(experiment) if Path(experiment).is_dir() else outputs / experiment
    written = render(folder)
    Console().print(table(folder))
    for path in written.values():
        print(path)
