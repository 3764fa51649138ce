"""The training's side of a copy that another process makes."""

import json
import logging
import subprocess
import sys
import time
from typing import Any

from pytorch_lightning.loggers import Logger

from asr_lab.process import Stop
from asr_lab.tracking import RunInfo
from asr_lab.tracking.follow import END, TELL

log = logging.getLogger(__name__)

SHARE = 0.02  # of a training's time that it may wait for a copy at its end


class Follower(Logger):
    """Starts the process that copies the run (tracking/follow.py) and tells it when the run is over.

    Args:
        kind: where to: "wandb" or "trackio".
        options: of the copy.
        wait_s: how long to wait at the end; or `SHARE` of the training's time if that is more. The process goes on
            by itself after that.
    """

    def __init__(self, run: RunInfo, kind: str, wait_s: float, **options: Any):
        super().__init__()
        self.kind, self.wait_s = kind, wait_s
        self._log, self._told, self._start = run.folder / f"{kind}.log", 0, time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        options["is_told"] = Stop.listens
        command = [sys.executable, "-m", "asr_lab.tracking.follow", kind, str(run.folder), json.dumps(options)]
        try:
            # Not the training's output: whoever reads that would wait for this process, too.
            with open(self._log, "wb") as out:
                # A session of its own: Ctrl-C in a terminal and the end of a terminal are for the training.
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True
                )
        except OSError as error:
            log.warning("%s: cannot be started (%s); the run's own files go on", kind, error)

    @property
    def name(self) -> str:
        return self.kind

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """The values are in metrics.jsonl; here is only passed on what the process has to say."""
        self._tell()

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration has a file of its own."""

    def close(self) -> None:
        """The run is over and its result is written."""
        process = self._process
        if process is None:
            return
        assert process.stdin
        try:
            process.stdin.write(END)
            process.stdin.close()
        except OSError:  # it has gone
            pass
        try:
            code = process.wait(max(self.wait_s, SHARE * (time.monotonic() - self._start)))
            if code:
                log.warning("%s: ended early, see %s; the run's own files are complete", self.kind, self._log)
        except subprocess.TimeoutExpired:
            log.warning("%s: is still being sent, in the background", self.kind)
        self._process = None
        self._tell()

    def _tell(self) -> None:
        try:
            size = self._log.stat().st_size
            if size == self._told:
                return
            with open(self._log, "rb") as f:
                f.seek(self._told)
                new = f.read().rpartition(b"\n")[0]
        except OSError:
            return
        self._told += len(new) + bool(new)
        for line in new.decode(errors="replace").splitlines():
            if line.startswith(TELL):
                log.warning("%s", line.removeprefix(TELL))
