"""A process that has imported everything once and forks a child for each cell: a cell then starts in milliseconds.

    python -m asr_lab.sweep.nursery

It reads a JSON line for each cell to start, {"id": 1, "folder": "...", "env": {...}}, or to stop, {"stop": PID}, and
writes {"id": 1, "pid": 7} when it has started and {"id": 1, "code": 0} when it has ended (minus the signal's number for
a killed one). When its input ends, because the launcher is gone, the cells are told to save and to end.
"""

import atexit
import gc
import json
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from asr_lab.errors import is_disk_full
from asr_lab.lean_imports import import_leanly
from asr_lab.train import FULL

PRELOADED = (
    "torch",
    "pytorch_lightning",
    "asr_lab.build",
    "asr_lab.build_callbacks",
    "asr_lab.evaluate",
    "asr_lab.task",
    "asr_lab.train",
    "asr_lab.callbacks.gradients",
    "asr_lab.callbacks.through_time",
    "asr_lab.callbacks.watch",
    "asr_lab.report.confusion",
    "asr_lab.tracking.jsonl",
    "torchaudio",
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)
CAN_FORK = sys.platform == "linux"  # elsewhere system libraries do not bear it


class Nursery:
    """The server's loop; `serve` comes back in each child too."""

    def __init__(self) -> None:
        self.children: dict[int, Any] = {}  # pid -> id of its request
        self.woken, self.wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the launcher's to decide
            signal.signal(number, signal.SIG_IGN)

    def serve(self) -> str | None:
        """The folder of a run, in a child; None, in the server, when it is over."""
        waiting, is_open = b"", True
        while is_open or self.children:
            ready, _, _ = select.select([self.woken, *([0] if is_open else [])], [], [])
            if self.woken in ready:
                os.read(self.woken, 4096)
                self._reap()
            if 0 in ready:
                data = os.read(0, 1 << 16)
                if not data:
                    is_open = False
                    self._stop_all()
                *lines, waiting = (waiting + data).split(b"\n")
                for line in lines:
                    if (folder := self._answer(json.loads(line))) is not None:
                        return folder
        return None

    def _answer(self, request: dict[str, Any]) -> str | None:
        if "stop" in request:
            if request["stop"] in self.children:
                os.kill(request["stop"], signal.SIGTERM)
            return None
        command = request.get("command")
        if command or not CAN_FORK:
            try:
                pid = self._spawn(request, command or [sys.executable, "-m", "asr_lab.train", request["folder"]])
            except OSError as error:
                _say(id=request["id"], code=_failed(error))
                return None
        else:
            pid = os.fork()
            if pid == 0:
                try:
                    self._become(request)
                except OSError as error:
                    os._exit(_failed(error))
                return request["folder"]
        self.children[pid] = request["id"]
        _say(id=request["id"], pid=pid)
        return None

    def _spawn(self, request: dict[str, Any], command: list[str]) -> int:
        log = str(Path(request["folder"]) / "train.log")
        return os.posix_spawnp(
            command[0],
            command,
            os.environ | request["env"],
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setpgroup=0,
            setsigdef=SIGNALS,
        )

    def _become(self, request: dict[str, Any]) -> None:
        """A child of its own session, so that Ctrl-C reaches the launcher alone, with its output in train.log"""
        signal.set_wakeup_fd(-1)
        _default_signals()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        os.close(self.woken)
        os.close(self.wake)
        nothing = os.open(os.devnull, os.O_RDONLY)
        out = os.open(Path(request["folder"]) / "train.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.dup2(nothing, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ.update(request["env"])
        sys.argv = ["asr_lab.train", request["folder"]]

    def _reap(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in self.children:
                _say(id=self.children.pop(pid), code=os.waitstatus_to_exitcode(status))

    def _stop_all(self) -> None:
        for pid in self.children:
            os.kill(pid, signal.SIGTERM)


def _failed(error: OSError) -> int:
    """Exit status of a cell whose process could not even be started"""
    print(f"asr-lab: {error}", file=sys.stderr, flush=True)
    return FULL if is_disk_full(error) else 1


def _default_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _say(**row: Any) -> None:
    with suppress(BrokenPipeError):  # nobody is there to hear it
        os.write(1, (json.dumps(row) + "\n").encode())


def _is_over() -> bool:
    """Whether the launcher has gone and left no word"""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    return any(event & select.POLLHUP and not event & select.POLLIN for _, event in poll.poll(0))


def _cell(folder: str) -> None:
    """Train in a forked child and leave without taking the interpreter apart: that would take longer than a small cell,
    because it touches, and so copies, all of the memory that is shared with the nursery."""
    from asr_lab.train import main as train

    code = 1
    try:
        code = train(folder)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        code = FULL if is_disk_full(error) else 1
        with suppress(OSError):
            traceback.print_exc()
    finally:
        with suppress(BaseException):
            atexit._run_exitfuncs()
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def main() -> int:
    """Exit status of the nursery; its children never come back from here."""
    import importlib

    import_leanly()
    if CAN_FORK:
        for name in PRELOADED:
            importlib.import_module(name)
            if _is_over():
                return 0
        gc.freeze()  # what is shared with the children is not looked through, and so not copied, by each of them
    folder = Nursery().serve()
    if folder is not None:
        _cell(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
