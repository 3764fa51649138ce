"""How the process of a run behaves: threads, memory, signals, warnings, rank."""

import ctypes
import logging
import os
import signal
import sys
import time
import warnings
from typing import Any

from asr_lab.errors import AsrLabError

# Epochs after which a run ends for now; set by a search that halves, which lets it go on another time.
PAUSE = "ASR_LAB_PAUSE_AFTER_EPOCHS"
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # that ask a run to stop
PATIENCE_S = 5.0


def n_threads(wanted: int | str) -> int:
    """A count of threads; `auto` is what OMP_NUM_THREADS says (joblib, Ray and Slurm's sites share the cores out by
    it), or all cores that this process may use."""
    if wanted == "auto":
        said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        if said.isdecimal() and int(said):
            return int(said)
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(wanted, int) or wanted < 1:
        raise AsrLabError(f"runtime.n_threads is 'auto' or a positive count, {wanted!r} came")
    return wanted


def keep_freed_memory() -> None:
    """Tell glibc not to give freed memory back: a step then reuses its pages instead of faulting new ones in.

    Measured 1.2 times faster Conformer steps on CPU (benchmarks/cpu_levers.py); peak memory can grow. Does nothing on
    other C libraries.
    """
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 64 << 20)
    except (OSError, AttributeError):
        pass


def is_main_process() -> bool:
    """False in the processes that Lightning starts for the further ranks of a distributed run."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0


def quieten() -> None:
    """Lightning's hints are for people who write their own training scripts."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for pattern in (
        ".*does not have many workers.*",
        ".*checkpoint directory.*exists.*",
        ".*is not a.*Tensor.*",
        ".*LeafSpec.*",
        ".*no `val_dataloader`.*",
        ".*smaller than the logging interval.*",  # metrics.jsonl has each epoch anyway
        ".*`srun` command is available.*",  # a launcher of ours uses it where it should
    ):
        warnings.filterwarnings("ignore", pattern)


def is_quiet(config: dict[str, Any]) -> bool:
    """A line an epoch instead of progress bars: told so, or nobody is looking."""
    return config["runtime"]["quiet"] or not sys.stderr.isatty()


class Stop:
    """What this process was told."""

    wanted: int | None = None  # number of the signal
    since = 0.0  # when it came, or the way out began; monotonic seconds
    can_wait = False  # steps are being made: the next one's end comes soon
    ends = False  # on its way out
    listens = False


def stop_on_signals() -> None:
    """From now on SIGTERM, SIGUSR1 and SIGUSR2 end this process as `preempted`, exit status 128 + number.

    While it trains it saves first, after the step or validation at hand. Schedulers say the same thing several times
    (to a job, to its step, at once or in a row); a signal that comes `PATIENCE_S` later ends the process at once.
    """
    Stop.wanted, Stop.can_wait, Stop.ends, Stop.listens = None, False, False, True
    for number in SIGNALS:
        signal.signal(number, told_to_stop)


def told_to_stop(number: int, frame: Any) -> None:
    """What hears those signals"""
    now = time.monotonic()
    told = Stop.wanted or Stop.ends
    if told and now < Stop.since + PATIENCE_S:
        return
    Stop.since = now
    if told or not Stop.can_wait:
        Stop.ends = True
        sys.exit(128 + number)
    Stop.wanted = number


def ignore_signals() -> None:
    """All is saved. Python would fall back to their default while it takes itself apart: another exit status, or an end
    before what is still to be done."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
