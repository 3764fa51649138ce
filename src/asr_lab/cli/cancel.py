"""`asr-lab cancel`: stop cells of a sweep without losing what they have done."""

from pathlib import Path

import typer

from asr_lab.errors import RunError


def add(app: typer.Typer) -> None:
    app.command()(cancel)


def cancel(
    experiment: str = typer.Argument(help="Name under outputs/, or its folder."),
    cell: list[str] = typer.Argument(None, help="Beginnings of names or fingerprints of cells; without: all."),
    outputs: Path = typer.Option(Path("outputs"), help="Where experiments are."),
) -> None:
    """Cancel the cells that wait, and let those that run save and end; another sweep takes them up again.

    asr-lab cancel smoke; asr-lab cancel smoke clipping=none 88c454e1
    """
    from asr_lab.cli.status import folder_of
    from asr_lab.sweep.cancel import cancel as cancel_cells
    from asr_lab.sweep.state import state_of

    folder = folder_of(experiment, outputs)
    cells = state_of(folder).cells
    for wanted in cell or ():
        if not any(_fits(c.name, wanted) for c in cells):
            raise RunError(f"no cell '{wanted}' in {folder}; asr-lab status {experiment} --json lists them")
    said = cancel_cells(folder, [c for c in cells if not cell or any(_fits(c.name, w) for w in cell)])
    words = {
        "cancelled": "cancelled",
        "told": "told to save and to end",
        "elsewhere": "running on other hosts, marked to end there",
        "over": "over already",
    }
    print(", ".join(f"{len(names)} {words[what]}" for what, names in said.items() if names) or "no cell")


def _fits(name: str, wanted: str) -> bool:
    return name.startswith(wanted) or name.rpartition("-")[2].startswith(wanted[:8])
