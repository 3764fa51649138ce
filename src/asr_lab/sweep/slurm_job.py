"""One cell inside a Slurm job: trained from its frozen configuration; preempted, it asks to be queued again."""

import os
import subprocess
import sys
import time
from pathlib import Path

from asr_lab.hold import GONE_S
from asr_lab.process import ignore_signals

LOOK_S = 5.0


def run_cell(folder: str, max_requeues: int) -> int:
    """Train a frozen run in this job. Its exit status, once it is over.

    A signal before the time limit, or of a preemption, lets it save between two steps; the job is then queued again, at
    most `max_requeues` times, and goes on from there. Slurm's scripts call this in each of the job's tasks.
    """
    from asr_lab.train import BUSY, main

    # How Lightning and `is_main_process` know a rank.
    os.environ["LOCAL_RANK"] = os.environ.get("SLURM_LOCALID", "0")
    os.environ["NODE_RANK"] = os.environ.get("SLURM_NODEID", "0")
    is_first = os.environ.get("SLURM_PROCID", "0") == "0"
    if is_first:
        _write_to(Path(folder) / "train.log")
    if (Path(folder) / ".cancelled").exists():
        return 0
    until = time.monotonic() + 2 * GONE_S
    while True:
        try:
            code = main(folder)
        except SystemExit as stop:
            code = int(stop.code or 0)
            ignore_signals()  # of the same scheduler again, or of its requeue
        # An earlier process on another node may look alive for a while.
        if code != BUSY or time.monotonic() > until:
            break
        time.sleep(LOOK_S)
    if code > 128 and is_first and not (Path(folder) / ".cancelled").exists():
        _requeue(max_requeues)
    return code


def _requeue(max_requeues: int) -> None:
    n = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if n >= max_requeues:
        print(f"asr-lab: preempted {n + 1} times, not queued again", file=sys.stderr, flush=True)
        return
    # By its place in the array: SLURM_JOB_ID of the last task is the number of the whole array.
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"asr-lab: scontrol requeue {job}: {done.stderr.strip()}", file=sys.stderr, flush=True)


def _write_to(log: Path) -> None:
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
