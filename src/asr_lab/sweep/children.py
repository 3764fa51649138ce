"""The launcher's side of the nursery: start cells, hear how they end."""

import json
import os
import selectors
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple


class Ended(NamedTuple):
    """A cell's process is over."""

    id: int
    code: int | None  # exit status, minus a signal's number; None: nobody can say, the nursery died


class Children:
    """Cells' processes; a nursery that dies is replaced when the next cell starts."""

    def __init__(self) -> None:
        self.pids: dict[int, int | None] = {}  # of those that run: id -> pid, once it is known
        self._nursery: subprocess.Popen | None = None
        self._selector = selectors.DefaultSelector()
        self._waiting = b""
        self._next = 0
        self._over: list[Ended] = []  # not told yet

    def warm(self) -> None:
        """Let the nursery import what cells need while there is something else to do."""
        if self._nursery is None:
            self._open()

    def start(self, folder: Path, env: dict[str, str], command: list[str] | None = None) -> int:
        """A cell's process, the run's own or `command`; its id."""
        self._next += 1
        self.pids[self._next] = None
        self._send(id=self._next, folder=str(folder), env=env, command=command)
        return self._next

    def wait(self, timeout: float) -> list[Ended]:
        """What has ended, after at most `timeout` seconds"""
        if self._over:
            over, self._over = self._over, []
            return over
        if self._nursery is None or self._nursery.stdout is None or not self._selector.select(timeout):
            return []
        data = os.read(self._nursery.stdout.fileno(), 1 << 16)
        if not data:
            return self._lost()
        *lines, self._waiting = (self._waiting + data).split(b"\n")
        ended = []
        for row in map(json.loads, lines):
            if "pid" in row:
                self.pids[row["id"]] = row["pid"]
            else:
                self.pids.pop(row["id"], None)
                ended.append(Ended(row["id"], row["code"]))
        return ended

    def stop(self) -> None:
        """Tell all cells to save and to end; `wait` says when they have."""
        if self._nursery and self._nursery.stdin:
            self._nursery.stdin.close()

    def kill(self) -> None:
        for pid in self.pids.values():
            if pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Once no cell runs any more; the nursery is not needed even if it still imports."""
        self.stop()
        if self._nursery:
            self._nursery.kill()
            self._nursery.wait()
            self._forget()

    def _send(self, **row: Any) -> None:
        line = (json.dumps(row) + "\n").encode()
        for _ in range(2):
            if self._nursery is None:
                self._open()
            assert self._nursery and self._nursery.stdin
            try:
                self._nursery.stdin.write(line)
                self._nursery.stdin.flush()
                return
            except BrokenPipeError:  # it has died, which `wait` will say of its other cells
                self._over += [e for e in self._lost() if e.id != row["id"]]
                self.pids[row["id"]] = None
        raise RuntimeError("the process that starts cells dies at once; see its message above")

    def _open(self) -> None:
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "asr_lab.sweep.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._nursery.stdout
        self._selector.register(self._nursery.stdout, selectors.EVENT_READ)

    def _lost(self) -> list[Ended]:
        self._forget()
        ended = [Ended(i, None) for i in self.pids]
        self.pids.clear()
        return ended

    def _forget(self) -> None:
        if self._nursery and self._nursery.stdout:
            self._selector.unregister(self._nursery.stdout)
            self._nursery.stdout.close()
        self._nursery, self._waiting = None, b""
