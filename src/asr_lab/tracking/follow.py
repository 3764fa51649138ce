"""The process that copies a run's files elsewhere while it is trained: `python -m asr_lab.tracking.follow`.

The training only writes its files and never waits for this process, so nothing that happens to a service, to its
client or to the network can stop or slow it. What has not arrived when the run ends, `asr-lab wandb sync` brings later.
"""

import faulthandler
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asr_lab.run import Run
from asr_lab.tracking import Copy, End
from asr_lab.tracking.files import Looks, Rows, findings, utterances
from asr_lab.tracking.state import State, one_line

log = logging.getLogger("asr_lab.tracking")

TELL = "asr_lab: "  # how lines begin that the training passes on to its own log
END = b"end"  # what the training says when its result is written
TRIES = 3  # clients that may fail before the copy is left to a later sync
SAMPLES = 20
START_S = 30.0  # for imports, on a busy machine
OVER = {"exploded": "Training exploded", "failed": "Training failed"}


class Follow:
    """Brings a copy up to date with a run's files, again and again."""

    def __init__(self, run: Run, copy: Copy, state: State, n_samples: int = SAMPLES):
        self.run, self.copy, self.state, self.n_samples = run, copy, state, n_samples
        self.rows, self.looks = Rows(run.metrics_file), Looks(run.folder / "gradients.npz")
        self.alerted: set[str] = set(state["alerted"] or [])
        self.reason = ""  # why the copy is left out from now on
        self.first_step, self.n_sent = 0, 0  # of the rows that this client was given
        self._is_open, self._left = False, TRIES

    def open(self) -> None:
        """Start the copy's client. Raises whatever it raises."""
        self.first_step = self.copy.open()
        self.rows.rewind(self.first_step)
        self._is_open, self.n_sent = True, 0

    def update(self, is_over: bool = False) -> None:
        """What is new; `is_over`: the last step too."""
        self._guarded(lambda: self._update(is_over))

    def end(self) -> None:
        """The run's process has written its result, or is gone."""
        result = Run.result_in(self.run.folder) or {}
        status = result.get("status", "running")
        # The last step of a killed run may lack values; it is taken again when the run goes on.
        is_over = status != "running"
        missing: list[str] = []

        def finish() -> None:
            self._update(is_over)
            if status in OVER:
                self._alert(status, OVER[status], str(result.get("reason") or ""), True)
            # Here, for W&B watches what is imported, and that fails, too, when its client is dead.
            shown = utterances(self.run, self.n_samples) if status == "done" else []
            missing[:] = [self.copy.finish(End(status, result, shown))]

        self._guarded(finish)
        reason = self.reason or (missing or ["nothing has arrived"])[0]
        self.state.write(complete=not reason, missing=reason or None, status=status)

    def _update(self, is_over: bool) -> None:
        for step, values in self.rows.new(is_over):
            gradients = self.looks.until(step) if any(k.startswith("val/") for k in values) else {}
            self.copy.log(step, values, gradients)
            self.n_sent += 1
        for row in findings(self.run.folder):
            kind = str(row.get("kind"))
            self._alert(kind, f"{kind.replace('_', ' ')} at step {row.get('step')}", str(row.get("text")), False)
        if "nonfinite" not in self.alerted and (found := (Run.result_in(self.run.folder) or {}).get("nonfinite")):
            self._alert("nonfinite", f"step {found['step']} is not finite", str(found["verdict"]), True)

    def _alert(self, key: str, title: str, text: str, is_error: bool) -> None:
        """One of a kind: a network has many layers, and nobody reads a hundred mails."""
        if key not in self.alerted:
            self.alerted.add(key)
            self.copy.alert(f"{self.run.name}: {title}"[:200], text, is_error)
            self.state.write(alerted=sorted(self.alerted))

    def _guarded(self, work: Callable[[], None]) -> None:
        """`work` with a client that is started when there is none, and started again when it fails."""
        while not self.reason:
            try:
                if not self._is_open:
                    self.open()
                work()
                return
            except Exception as error:  # clients raise many kinds
                self._left -= 1
                if not self._left or isinstance(error, TimeoutError):
                    self.reason = one_line(error)
                    log.warning("%s: left out (%s); the run's own files go on, `asr-lab wandb sync` completes the copy",
                                self.state.kind, self.reason)  # fmt: skip
                self._is_open = False
                self.copy.abandon()


class Parent:
    """The training's process: whether it has ended, or was killed. `limit_s` after that this process ends, too."""

    def __init__(self, limit_s: float):
        self.ended = threading.Event()
        self._limit, self._pid = limit_s, os.getppid()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Until the pipe says that it is over; a fork of the training may hold it open, so its pid is watched, too."""
        threading.Thread(target=self._read, daemon=True).start()
        while not self.ended.wait(1.0) and os.getppid() == self._pid:
            pass
        self.ended.set()
        threading.Event().wait(self._limit)
        faulthandler.dump_traceback(sys.stderr)
        os._exit(1)  # a client that hangs; what has not arrived is not in the state as complete

    def _read(self) -> None:
        sys.stdin.buffer.read(len(END))
        self.ended.set()


def main(kind: str, folder: str, options: dict[str, Any]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # meant for the training, which says when it is over
    os.nice(5)  # the training goes first
    sys.modules["pandas"] = None  # pyright: ignore  # wandb imports it, if it is there, to look for data frames: seconds
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(TELL + "%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    log.propagate = False
    poll_s = options.pop("poll_s")
    # A short training ends before the client has started, online and perhaps once more offline.
    parent = Parent(options["finish_timeout_s"] + 2 * options.get("init_timeout_s", 0.0) + START_S)
    run = Run.open(Path(folder))
    state = State(run.folder, kind)
    follow = Follow(run, copy_of(kind, run, state, options), state)
    while not parent.ended.wait(poll_s) and not follow.reason:
        follow.update()
    parent.ended.wait()
    follow.end()


def copy_of(kind: str, run: Run, state: State, options: dict[str, Any]) -> Copy:
    is_told, pid = options.pop("is_told"), os.getppid()
    if kind == "trackio":
        from asr_lab.tracking.trackio_copy import TrackioCopy

        return TrackioCopy(run, state, options["project"])
    from asr_lab.tracking.wandb_copy import WandbCopy

    # A training that listens saves, and ends as preempted.
    return WandbCopy(run, state, **options, stop=(lambda: os.kill(pid, signal.SIGTERM)) if is_told else None)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
