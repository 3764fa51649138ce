"""What a training cost: time in training steps, and how much was trained on."""

import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Meter(Callback):
    """Seconds of training (validation and checkpoints excluded), of waiting for data, and the amount trained on, in the
    task's unit.

    All are kept over resumes. Waiting is part of training.
    """

    def __init__(self) -> None:
        self.train_seconds = 0.0
        self.amount = 0.0
        self._data_before = 0.0  # of earlier processes
        self._loader: Any = None
        self._since: float | None = None

    @property
    def amount_per_second(self) -> float:
        return self.amount / self.train_seconds if self.train_seconds else 0.0

    @property
    def data_seconds(self) -> float:
        return self._data_before + (self._loader.seconds_waited if self._loader else 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._loader = trainer.train_dataloader

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.amount += pl_module.amount(batch) * trainer.world_size  # pyright: ignore
        self._read()
        self._since = time.monotonic()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read()

    def _read(self) -> None:
        if self._since is not None:
            self.train_seconds += time.monotonic() - self._since
            self._since = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "train_seconds": self.train_seconds,
            "amount": self.amount,
            "data_seconds": self.data_seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.train_seconds = state_dict["train_seconds"]
        self.amount = state_dict["amount"]
        self._data_before = state_dict["data_seconds"]
