"""The pool of a launch on this machine: cells that wait, cells that run, and cells that another launch runs."""

import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from asr_lab.errors import RunError
from asr_lab.hold import holder
from asr_lab.ledger import of_run
from asr_lab.run import Run, show_score
from asr_lab.sweep.children import Children, Ended
from asr_lab.sweep.gpus import Gpus
from asr_lab.train import BUSY, FULL

LOOK_S = 1.0  # between two looks at cells that another launch runs


class Pool:
    """Cells that are to be run, those that run, and those that another launch runs."""

    def __init__(
        self,
        runs: Iterable[Run],
        at_once: int,
        n_threads: int,
        retry_failed: int,
        max_deaths: int,
        gpus: Gpus,
        children: Children,
        n: int | None = None,
        env: dict[str, str] | None = None,
    ):
        """`n` cells in all, if there will be more than `runs`; `env` is for their processes."""
        self.todo, self.at_once, self.n_threads = deque(runs), at_once, n_threads
        self.retry_failed, self.max_deaths, self.gpus = retry_failed, max_deaths, gpus
        self.running: dict[int, tuple[Run, list[str]]] = {}  # id of the process -> cell, its GPUs
        self.elsewhere: list[Run] = []
        self.tries: Counter[str] = Counter()  # failures, by name
        self.deaths: Counter[str] = Counter()
        self.n, self.n_over = n or len(self.todo), 0
        self.env = env or {}
        self.children = children
        self.looked = 0.0

    def run(self) -> None:
        with _signals_as_interrupts():
            try:
                self._run()
            except BaseException:
                self._stop()
                raise

    def _run(self) -> None:
        while self.has_more() or self.running or self.elsewhere:
            while len(self.running) < self.at_once and self.fill() and self._start():
                pass
            for ended in self.children.wait(LOOK_S if self.running else 0.0):
                self._ended(ended)
            self.watch()
            if self.elsewhere and not self.todo:
                self._look()

    def has_more(self) -> bool:
        """Whether there will be cells to start"""
        return bool(self.todo)

    def fill(self) -> bool:
        """Whether there is one now; a search makes it here."""
        return bool(self.todo)

    def watch(self) -> None:
        """Called about once a second while cells run."""

    def over(self, run: Run) -> None:
        """Called once for each cell, whatever came of it."""

    def _start(self) -> bool:
        run = self.todo[0]
        if run.cancelled_file.exists():
            self._over(self.todo.popleft(), "cancelled")
            return True
        if (other := holder(run.folder)) and other.is_alive:
            self.elsewhere.append(self.todo.popleft())
            return True
        if n_nodes(run) > 1:
            self.todo.popleft()
            self._fail(run, f"needs {n_nodes(run)} nodes; hydra/launcher=slurm has them")
            return True
        on_gpu = bool(self.gpus) and run.config["trainer"].get("accelerator") != "cpu"
        gpus = self.gpus.take(n_devices(run)) if on_gpu else []
        if gpus is None and n_devices(run) <= len(self.gpus):
            return False
        self.todo.popleft()
        if gpus is None:
            self._fail(run, f"needs {n_devices(run)} GPUs, this machine has {len(self.gpus)}")
            return True
        env = self.env | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if on_gpu else {})
        self.running[self.children.start(run.folder, env, ranks(run))] = (run, gpus)
        return True

    def _ended(self, ended: Ended) -> None:
        run, gpus = self.running.pop(ended.id)
        result = run.result() or {}
        self.gpus.give(gpus, result.get("peak_memory_mb") if gpus else None)
        status = result.get("status")
        if ended.code == BUSY or ended.code is None:
            self.elsewhere.append(run)
        elif ended.code < 0 or ended.code > 128:
            self._died(run, f"signal {-ended.code if ended.code < 0 else ended.code - 128}", status)
        elif n_devices(run) > 1 and ended.code and status in ("running", "preempted"):
            self._died(run, "the end of one of its ranks", status)  # torchrun does not say how it ended
        elif ended.code == FULL:  # others would meet it too
            reason = result.get("reason") or f"{run.folder}: no space left, or read-only"
            raise RunError(f"{reason}; the same command goes on")
        elif status in ("planned", "running"):  # without a word: an error while importing
            self._fail(run, f"exit status {ended.code}; see {run.folder}/train.log")
        elif status == "failed" and self.tries[run.name] < self.retry_failed:
            self.tries[run.name] += 1
            self._line(run, f"try {self.tries[run.name] + 1}")
            self.todo.append(run)
        else:
            self._over(run)

    def _died(self, run: Run, cause: str, status: str | None) -> None:
        if status == "done" or run.cancelled_file.exists():  # killed after it was over, or because it shall be
            self._over(run, status if status == "done" else "cancelled")
            return
        reason = f"killed by {cause}; see {run.folder}/train.log"
        self.deaths[run.name] += 1
        if self.deaths[run.name] > self.max_deaths:
            self._fail(run, f"{reason} ({self.deaths[run.name]} times)")
            return
        if status != "preempted":
            self._note(run, "preempted", reason)
        self._line(run, "started again")
        self.todo.append(run)

    def _look(self) -> None:
        """At cells that another launch runs."""
        if not self.running:
            time.sleep(LOOK_S)
        if time.monotonic() - self.looked < LOOK_S:
            return
        self.looked = time.monotonic()
        for run in list(self.elsewhere):
            if (other := holder(run.folder)) and other.is_alive:
                continue
            self.elsewhere.remove(run)
            if (run.result() or {}).get("status") in ("done", "failed", "exploded", "cancelled"):
                self._over(run)
            else:
                self.todo.append(run)

    def _fail(self, run: Run, reason: str) -> None:
        self._note(run, "failed", reason)
        self._over(run)

    def _note(self, run: Run, status: str, reason: str) -> None:
        run.write_result(status=status, reason=reason)
        of_run(run.folder)(status, reason)

    def _over(self, run: Run, status: str | None = None) -> None:
        if status == "cancelled" and (run.result() or {}).get("status") != status:
            self._note(run, status, run.cancelled_file.read_text().strip())
        self.n_over += 1
        print(f"[{self.n_over}/{self.n}] {line(run)}", file=sys.stderr, flush=True)
        self.over(run)

    def _line(self, run: Run, what: str) -> None:
        print(f"{line(run)}  ({what})", file=sys.stderr, flush=True)

    def _stop(self) -> None:
        """Cells save and end; a second Ctrl-C kills them."""
        if not self.running:
            return
        print(f"asr-lab: stopping, {len(self.running)} cells save where they are", file=sys.stderr, flush=True)
        self.children.stop()
        try:
            while self.running:
                for ended in self.children.wait(LOOK_S):
                    self.running.pop(ended.id, None)
        except BaseException:
            self.children.kill()
            raise


def ranks(run: Run) -> list[str] | None:
    """The command of a cell with several devices: its ranks start from the frozen configuration."""
    n = n_devices(run)
    if n == 1:
        return None
    own = ["-m", "asr_lab.train", str(run.folder)]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", *own]


def n_devices(run: Run) -> int:
    """On each node"""
    return _count(run.config["trainer"].get("devices", 1))


def n_nodes(run: Run) -> int:
    return _count(run.config["trainer"].get("num_nodes", 1))


def line(run: Run) -> str:
    """One cell's outcome in a line."""
    result = run.result() or {}
    if result.get("status") != "done":
        return f"{result.get('status')}  {run.name}  {result.get('reason')}"
    rate = show_score(run.score, result["metrics"].get(f"test/{run.score}", float("nan")))
    return f"done  {run.name}  test/{run.score} {rate}  {result['seconds']['total']:.0f} s"


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP (a closed terminal) stop a sweep as Ctrl-C does."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    old = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _count(value: Any) -> int:
    return len(value) if isinstance(value, list) else value if isinstance(value, int) and value > 0 else 1
