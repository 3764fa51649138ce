"""`asr-lab rerun`: does the same run give the same bits again?"""

import json
import subprocess
import sys
from pathlib import Path

import typer

from asr_lab.errors import RunError


def add(app: typer.Typer) -> None:
    app.command()(rerun)


def rerun(
    run: str = typer.Argument(help="Folder of a finished run, or the beginning of its cell's name or fingerprint."),
    outputs: Path = typer.Option(Path("outputs"), help="Where experiments are."),
    as_json: bool = typer.Option(False, "--json", help="Print the comparison as JSON."),
) -> None:
    """Train a finished run again from its frozen configuration and compare bit by bit; exit status 1 if it differs.

    The second run stays in rerun-1/ inside the first one's folder. On a CPU, with the same code, versions and number of
    threads, everything is equal; on a GPU it need not be.

    asr-lab rerun 88c454e1
    """
    from rich.console import Console

    from asr_lab.run import find_run
    from asr_lab.sweep.rerun import compared, second_run

    first = find_run(run, outputs, kind=None)
    second = second_run(first)
    print(f"training {second.folder}", file=sys.stderr, flush=True)
    with open(second.folder / "train.log", "ab") as out:
        code = subprocess.call([sys.executable, "-m", "asr_lab.train", str(second.folder)], stdout=out, stderr=out)
    if code:
        reason = (second.result() or {}).get("reason") or f"exit status {code}"
        raise RunError(f"{second.folder}: {reason}; see train.log there")
    found = compared(first, second)
    if as_json:
        print(json.dumps(found.as_json()))
    else:
        console = Console(highlight=False)
        for part in found.parts:
            said = "equal" if part.same else f"{part.differing} differ, first {part.first}"
            console.print(f"{part.n} {part.what}: {said}", soft_wrap=True)
        for line in found.suspects:
            console.print(f"  {line}", soft_wrap=True)
        console.print("bit-equal" if found.bit_equal else "not bit-equal", style="bold")
    if not found.bit_equal:
        raise typer.Exit(1)
