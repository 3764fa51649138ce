"""What Slurm says, by its own commands, held against what the files of cells say."""

import subprocess
import time
from datetime import datetime
from pathlib import Path

from asr_lab.errors import RunError
from asr_lab.hold import FILE as LOCK
from asr_lab.hold import GONE_S, holder
from asr_lab.ledger import read_events


def ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{command[0]}: {error}; is Slurm up?") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise RunError(f"{command[0]}: {said}; is Slurm up?")
    return done.stdout


def max_array_size() -> int:
    for line in ask("scontrol", "show", "config").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "MaxArraySize":
            return max(1, int(value) - 1)  # indices begin at 0 and stay below it
    return 1000


def in_queue(folder: Path) -> tuple[set[str], list[str]]:
    """Of an experiment's folder: names of the cells whose jobs Slurm still has, and ids of the jobs that it believes to
    run although their cell's process is gone.

    Such a job, whose shepherd was killed, would hold its place until its time is up; its cell does not count as queued.
    """
    since: dict[str, float | None] = {}  # start of each job, None of one that waits
    for line in ask("squeue", "-h", "-r", "-o", "%i|%F_%K|%t|%S").splitlines():
        job, place, state, start = line.split("|")
        since[job] = since[place] = _seconds(start) if state == "R" else None
    events, _ = read_events(folder)
    jobs = {e.cell: str(e.more["job"]) for e in events if str(e.more.get("job")) in since}
    lost = {cell: job for cell, job in jobs.items() if _is_lost(folder / cell, since[job])}
    return jobs.keys() - lost.keys(), sorted(lost.values())


def _is_lost(cell: Path, since: float | None) -> bool:
    """Whether the process of a job that began at `since` has come and gone"""
    try:
        beat = (cell / LOCK).stat().st_mtime
    except FileNotFoundError:
        return False
    if since is None or beat < since:
        return False  # it waits, or it is about to begin
    who = holder(cell)
    if who is None:  # it has let go, and should be over in seconds
        return time.time() - beat > 2 * GONE_S
    return not who.is_alive


def _seconds(start: str) -> float | None:
    try:
        return datetime.fromisoformat(start).timestamp()
    except ValueError:
        return None
