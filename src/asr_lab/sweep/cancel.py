"""Cancelling cells: those that wait are not run, those that run save where they are and end."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

from asr_lab.files import write_text
from asr_lab.hold import holder
from asr_lab.ledger import Ledger
from asr_lab.run import CANCELLED
from asr_lab.sweep.state import OVER, CellState


def cancel(folder: Path, cells: Iterable[CellState]) -> dict[str, list[str]]:
    """Of an experiment's folder: names by what was done, `cancelled`, `told` (it runs here and was told to end),
    `elsewhere` (it runs on another host, and ends when that one looks) and `over` (nothing to do).

    A scheduler's jobs of these cells are cancelled too.
    """
    said: dict[str, list[str]] = {"cancelled": [], "told": [], "elsewhere": [], "over": []}
    jobs = []
    ledger = Ledger(folder)
    for cell in cells:
        if cell.state in OVER:
            said["over"].append(cell.name)
            continue
        write_text(
            folder / cell.name / CANCELLED, "by asr-lab cancel\n"
        )  # before the signal: the process looks for it when it ends
        if cell.job:
            jobs.append(cell.job)
        who = holder(folder / cell.name)
        if who and who.is_alive and who.is_here:
            os.kill(who.pid, signal.SIGTERM)
            said["told"].append(cell.name)
        elif who and who.is_alive:
            said["elsewhere"].append(cell.name)
        else:
            said["cancelled"].append(cell.name)
    ledger.extend((name, "cancelled", "", {}) for name in said["cancelled"])
    ledger.close()
    if jobs and shutil.which("scancel"):
        subprocess.run(["scancel", *jobs], check=False, capture_output=True)
    return said
