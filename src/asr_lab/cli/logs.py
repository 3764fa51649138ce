"""`asr-lab logs`: what the process of a cell wrote."""

import sys
import time
from pathlib import Path

import typer

from asr_lab.errors import RunError


def add(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    run: str = typer.Argument(help="Folder of a run, or the beginning of its cell's name or fingerprint."),
    lines: int = typer.Option(50, "--lines", "-n", min=0, help="Last so many lines; 0: all."),
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on printing until the run is over."),
    outputs: Path = typer.Option(Path("outputs"), help="Where experiments are."),
) -> None:
    """Print train.log of a cell: its epochs, warnings, and the error that ended it.

    asr-lab logs 88c454e1; asr-lab logs clipping=none -n 0; asr-lab logs outputs/smoke/CELL --follow
    """
    from asr_lab.hold import holder
    from asr_lab.run import find_run

    found = find_run(run, outputs, kind=None)
    path = found.folder / "train.log"
    if not path.exists():
        raise RunError(f"{path}: not there; the run was not started by a launcher, or not yet")
    with open(path, errors="replace") as f:
        text = f.readlines()
        sys.stdout.writelines(text[-lines:] if lines else text)
        while follow:
            more = f.read()
            print(more, end="", flush=True)
            who = holder(found.folder)
            if not more and not (who and who.is_alive):
                break
            time.sleep(0.5)
