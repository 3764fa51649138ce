"""Who trains a run: one process at a time, which holds the lock `.lock` and lets its heart beat.

The lock is the kernel's and goes with its process. What is written in the file is for others to read: host, process and
since when; its time of change is the heart-beat. On a file system whose locks do not reach other nodes the heart-beat
of the other node's process counts alone.
"""

import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from asr_lab.errors import RunError

FILE = ".lock"
BEAT_S = 10.0
GONE_S = 90.0  # without a beat, on another host


class BusyError(RunError):
    """Another process holds the run."""


class Holder(NamedTuple):
    """Who has written himself into a lock."""

    pid: int
    host: str
    started: str  # the kernel's start time of the process, so that a pid that is used again is told apart
    age_s: float  # since the last heart-beat, by this machine's clock

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        return _start_of(self.pid) == self.started if self.is_here else self.age_s < GONE_S


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a run's folder.

    Raises:
        BusyError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    with open(path, "a+") as f:
        _lock(f, path)
        f.seek(0)
        f.truncate()
        f.write(f"pid {os.getpid()} on {socket.gethostname()} started {_start_of(os.getpid())}\n")
        f.flush()
        ended = threading.Event()
        heart = threading.Thread(target=_beat, args=(path, ended), daemon=True, name="heart-beat")
        heart.start()
        try:
            yield
        finally:
            ended.set()
            heart.join()
            f.truncate(0)  # nobody any more


def holder(folder: Path) -> Holder | None:
    """Who holds a run, or held it when he was killed; None if the last one let go. Takes no lock."""
    path = Path(folder) / FILE
    try:
        words = path.read_text().split()
        age = time.time() - path.stat().st_mtime
    except OSError:
        return None
    if len(words) != 6 or not words[1].isdigit():
        return None
    return Holder(int(words[1]), words[3], words[5], age)


def _lock(f: IO[str], path: Path) -> None:
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        other = holder(path.parent)
        if other is None or other.is_here or not other.is_alive:
            return
    except OSError:
        pass
    other = holder(path.parent)
    who = f"pid {other.pid} on {other.host}" if other else "it has just begun"
    raise BusyError(f"{path.parent}: is being trained by another process ({who})")


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with suppress(OSError):  # a server that is away for a while
            os.utime(path)


def _start_of(pid: int) -> str:
    """The kernel's start time of a process, "0" where there is none to read, "" if there is no such process"""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return "" if Path("/proc/self").exists() else _is_running(pid)
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state == "Z" else fields[18]


def _is_running(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "0"
