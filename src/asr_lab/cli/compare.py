"""`asr-lab compare A B`: what differs between runs, what it did to their errors, and how sure that is."""

from pathlib import Path

import typer


def add(app: typer.Typer) -> None:
    app.command()(compare)


def compare(
    runs: list[str] = typer.Argument(
        help="Runs (folder, or the beginning of a cell name or fingerprint), or key=value,key=value in an experiment.",
    ),
    experiment: str = typer.Option(
        None, help="Where key=value is looked for: a name in the outputs folder, or a folder."
    ),
    factor: str = typer.Option(None, help="What is meant to differ, such as encoder; all else that does is warned of."),
    seeds: bool = typer.Option(False, "--seeds", help="A run stands for all seeds of its configuration."),
    split: str = typer.Option("test", help="val or test, or what `asr-lab evaluate` scored."),
    score: str = typer.Option(None, help="wer or cer; that of the runs unless given."),
    tests: bool = typer.Option(False, "--tests", help="Also every test of every pair."),
    top: int = typer.Option(5, min=0, help="So many of the utterances that changed most."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
) -> None:
    """Compare runs, or configurations over their seeds: what differs, errors with intervals and tests, speed and size.

    asr-lab compare 0b9e 897a; asr-lab compare clipping=none clipping=norm --experiment smoke
    """
    import json

    from rich.console import Console

    from asr_lab.report.compare import compare as compared
    from asr_lab.report.compare_table import print_compared
    from asr_lab.report.sides import sides_of

    found = compared(sides_of(runs, outputs, split, experiment, seeds), split, score, factor, tests or as_json)
    if as_json:
        print(json.dumps(found.as_json(top), indent=1))
    else:
        print_compared(found, Console(highlight=False), top, tests)
