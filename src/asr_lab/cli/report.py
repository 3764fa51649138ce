"""`asr-lab report EXPERIMENT`: tables, intervals and curves from the files of its runs."""

from pathlib import Path

import typer


def add(app: typer.Typer) -> None:
    app.command()(report)


def report(
    experiment: str = typer.Argument(help="Name of an experiment under the outputs folder, or its folder."),
    audio: int = typer.Option(
        0, min=0, metavar="N", help="Put recordings of the N worst utterances into report.html, from the run's corpus."
    ),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
) -> None:
    """Write the report of an experiment beside its runs, from their files alone, and print the table.

    report.html is one file that needs no network; report.md says the same without charts; results.csv has a row a cell;
    table.tex, methods.tex and references.bib are for a paper. Also while cells still run.

    asr-lab report smoke; asr-lab report outputs/smoke --audio 5
    """
    from rich.console import Console

    from asr_lab.report.collect import collect
    from asr_lab.report.main_table import main_table
    from asr_lab.report.render import write
    from asr_lab.report.summary import summarise

    folder = outputs / experiment
    if not folder.is_dir() and Path(experiment).is_dir():
        folder = Path(experiment)
    summary = summarise(collect(folder))
    written = write(summary, audio)
    Console().print(main_table(summary))
    for path in written.values():
        print(path)
