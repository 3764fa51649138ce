"""What happened to the cells of an experiment: events, appended by many processes, read together.

Each process appends to a file of its own in `<experiment>/ledger/`, so that no two nodes of a cluster ever wait for one
file, and a line is on the disk before anyone acts on it. The state of a cell is that of its last event; what has become
of a run is known from its result.json and its lock, which `sweep/state.py` reads: an event only says what was intended.
"""

import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from asr_lab.errors import DiskFullError, RunError, is_disk_full

log = logging.getLogger(__name__)

VERSION = 1
FOLDER = "ledger"
PLAN = "sweep.json"  # only a folder with a plan has a ledger
STATES = ("planned", "queued", "running", "done", "failed", "preempted", "exploded", "cancelled")


class Event(NamedTuple):
    """One line: a cell came into a state."""

    cell: str  # name of its folder
    state: str  # one of STATES
    time: float  # s since 1970, of the host that wrote
    host: str
    pid: int
    reason: str  # "" where there is none to give
    more: dict[str, Any]  # fingerprint, job id, score, ...


class Ledger:
    """The events of one experiment's folder; one object a process."""

    def __init__(self, experiment: Path):
        self.folder = Path(experiment) / FOLDER
        self.host, self.pid = socket.gethostname(), os.getpid()
        self._lock = threading.Lock()
        self._file: int | None = None

    def append(self, cell: str, state: str, reason: str = "", **more: Any) -> None:
        """One event, on the disk when this returns.

        Raises:
            DiskFullError: it cannot be written; what was there is whole.
        """
        self.extend([(cell, state, reason, more)])

    def extend(self, events: Iterable[tuple[str, str, str, dict[str, Any]]]) -> None:
        """Several events with one flush; (cell, state, reason, more) of each. Raises as `append`."""
        now = round(time.time(), 3)
        lines = []
        for cell, state, reason, more in events:
            assert state in STATES, state
            row = {"v": VERSION, "time": now, "cell": cell, "state": state, "host": self.host, "pid": self.pid}
            lines.append(json.dumps(row | ({"reason": reason} if reason else {}) | more, ensure_ascii=False) + "\n")
        data = "".join(lines).encode()
        with self._lock:
            try:
                self._write(data)
            except OSError as error:
                if is_disk_full(error):
                    raise DiskFullError(f"{self.folder}: cannot write ({error.strerror}); free some space") from error
                raise

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
            name = f"{started}-{self.host}-{self.pid}.jsonl"
            self._file = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            if os.write(self._file, data) < len(data):
                raise OSError(28, "No space left on device")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, end)  # no half line stays
            raise

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None


def of_run(folder: Path) -> Callable[..., None]:
    """`tell(state, reason="", **more)` for a run in `folder`, which is no cell of an experiment without a plan.

    What cannot be written is only said: the run's own result is the truth.
    """
    if not (folder.parent / PLAN).exists():
        return lambda state, reason="", **more: None
    ledger = Ledger(folder.parent)

    def tell(state: str, reason: str = "", **more: Any) -> None:
        try:
            ledger.append(folder.name, state, reason, **more)
        except (DiskFullError, OSError) as error:
            log.warning("%s", error)

    return tell


def read_events(experiment: Path) -> tuple[list[Event], list[str]]:
    """All events in the order of their times, and a line for each place that could not be read.

    A last line that is torn (its writer was killed) is left out and said; it harms nobody, for nobody appends to it.

    Raises:
        RunError: a newer version of asr_lab wrote it.
    """
    found: list[Event] = []
    damage: list[str] = []
    for path in sorted((Path(experiment) / FOLDER).glob("*.jsonl")):
        found += _read(path, damage)
    found.sort(key=lambda event: event.time)  # stable: a file's own order stays
    return found, damage


def _read(path: Path, damage: list[str]) -> list[Event]:
    rows = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            version = int(row.pop("v"))
            known = [] if version > VERSION else [row.pop(key) for key in ("cell", "state", "time", "host", "pid")]
            reason = row.pop("reason", "")
        except (ValueError, KeyError, TypeError, AttributeError):
            torn = number == len(lines)
            damage.append(f"{path}:{number}: {'a torn last line' if torn else 'not an event'}, left out")
            continue
        if not known:
            raise RunError(
                f"{path}: a newer asr_lab wrote it (version {version}, this one knows {VERSION}); update this"
            )
        if known[1] not in STATES:
            damage.append(f"{path}:{number}: no such state '{known[1]}', left out")
            continue
        rows.append(Event(*known, reason, row))  # pyright: ignore[reportCallIssue]
    return rows


def mend(experiment: Path) -> list[str]:
    """Take torn last lines off the files of processes that are gone; what was done, a line for each file.

    Raises:
        RunError: a newer version of asr_lab wrote a ledger.
    """
    _, damage = read_events(experiment)
    said = []
    for line in damage:
        path = Path(re.split(r":\d+: ", line)[0])
        data = path.read_bytes()
        if data.endswith(b"\n") or _is_written_to(path):
            said.append(line)
            continue
        with open(path, "r+b") as f:
            f.truncate(data.rfind(b"\n") + 1)
        said.append(f"{path}: a torn last line, taken off")
    return said


def _is_written_to(path: Path) -> bool:
    """Whether the file's process may still live; a name ends with its host and pid"""
    host, _, pid = path.stem.partition("-")[2].rpartition("-")
    if host != socket.gethostname():
        return time.time() - path.stat().st_mtime < 60
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def last_events(events: Iterable[Event]) -> dict[str, Event]:
    """The last event of each cell"""
    return {event.cell: event for event in events}
