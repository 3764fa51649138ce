"""A run that is told to stop (a scheduler's signal, a person) first saves where it is, between two steps."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from asr_lab.errors import PausedError
from asr_lab.process import PAUSE, Stop, told_to_stop

EVERY = 8  # steps between two agreements of several ranks


class StopBetweenSteps(Callback):
    """Saves to `file` and ends the process once it is told to."""

    def __init__(self, file: Path):
        self.file = file

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Stop.can_wait = True
        if Stop.listens:  # Lightning has put its own in front, which ends the process before there is a checkpoint
            signal.signal(signal.SIGTERM, told_to_stop)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        n = trainer.current_epoch  # epochs that are over
        if not n or n % (trainer.check_val_every_n_epoch or 1):
            return
        # The validation has just been saved; Lightning calls the callbacks that do so last, so not in its own hook.
        if self._wanted(trainer, EVERY - 1):
            self._end()
        if PAUSE in os.environ and int(os.environ[PAUSE]) <= n:
            raise PausedError(f"paused after epoch {n}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches or trainer.is_last_batch:
            return  # inside a step; or the epoch's end comes first
        if self._wanted(trainer, batch_idx):
            # Lightning would log the step after this hook, which does not come back.
            trainer._logger_connector.on_batch_end()
            trainer._logger_connector.update_train_step_metrics()
            trainer.save_checkpoint(self.file)
            self._end()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Stop.can_wait = False
        if Stop.wanted:
            self._end()

    def _wanted(self, trainer: Trainer, batch_idx: int) -> bool:
        if trainer.world_size == 1:
            return Stop.wanted is not None
        if (batch_idx + 1) % EVERY:
            return False
        return trainer.strategy.reduce_boolean_decision(Stop.wanted is not None, all=False)

    def _end(self) -> None:
        Stop.can_wait, Stop.ends, Stop.since = False, True, time.monotonic()
        sys.exit(128 + (Stop.wanted or signal.SIGTERM))
