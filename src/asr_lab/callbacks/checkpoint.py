"""Checkpoints within an epoch."""

from datetime import timedelta
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint


class TimedCheckpoint(ModelCheckpoint):
    """Saves every so often between two steps, never inside one whose gradients are still being accumulated."""

    def __init__(self, interval: timedelta, **where: Any):
        super().__init__(train_time_interval=interval, **where)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
