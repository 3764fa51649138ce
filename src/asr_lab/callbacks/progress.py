"""How far a run is, for whoever watches it: `progress.json` in its folder."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from asr_lab.errors import DiskFullError
from asr_lab.files import write_json

FILE = "progress.json"
EVERY_S = 5.0


class Progress(Callback):
    """Written every few seconds and after each validation, by the first rank."""

    def __init__(self, folder: Path, score: str):
        self.file, self.score = folder / FILE, score
        self._began = self._last = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began, self._first_step = time.time(), trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.time() - self._last > EVERY_S:
            self._write(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        self._last = time.time()
        if not trainer.is_global_zero:
            return
        steps = trainer.estimated_stepping_batches
        score = trainer.callback_metrics.get(f"val/{self.score}")
        row = {
            "epoch": trainer.current_epoch,
            "epochs": trainer.max_epochs,
            "step": trainer.global_step,
            "steps": None if steps == float("inf") else int(steps),
            "metric": self.score,
            "score": None if score is None else float(score),
            "began": self._began,  # s since 1970, of this process's first step
            "first_step": self._first_step,
            "time": self._last,
        }
        with suppress(DiskFullError):  # whoever watches misses something; what counts has its own checks
            write_json(self.file, row)
