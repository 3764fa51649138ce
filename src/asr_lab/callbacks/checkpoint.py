"""Which weights are kept: the best, those within an epoch, and those at which training ended."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from asr_lab.callbacks.averaging import KeptCheckpoints


class TimedCheckpoint(ModelCheckpoint):
    """Saves every so often between two steps, never inside one whose gradients are still being accumulated."""

    def __init__(self, interval: timedelta, **where: Any):
        super().__init__(train_time_interval=interval, **where)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


class BestCheckpoint(ModelCheckpoint):
    """From the first average of weights on only averages can be the best: that is what was asked for.

    `kept` holds what is averaged after training, where that was asked for.
    """

    def __init__(self, kept: KeptCheckpoints | None, **where: Any):
        super().__init__(**where)
        self.kept, self.averaged = kept, False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and pl_module.averaging.n and not self.averaged:  # pyright: ignore
            self.averaged = True
            self.best_k_models, self.best_model_score, self.kth_best_model_path, self.best_model_path = {}, None, "", ""
        super().on_validation_end(trainer, pl_module)

    def clear(self) -> None:
        """The run is done."""
        if self.kept:
            self.kept.clear()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"averaged": self.averaged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.averaged = state_dict["averaged"]
        super().load_state_dict(state_dict)


def settle(trainer: Trainer, task: Any, loader: Any, best: BestCheckpoint, file: Path) -> None:
    """After training: `file` is what the run is scored by.

    Training that stops inside an epoch (max_steps) has weights that no validation has seen: they are validated, too.
    Where a mean of checkpoints was asked for, it takes the place of the best one.
    """
    if task.validated_step != trainer.global_step:
        score = trainer.validate(task, loader, verbose=False)[0][str(best.monitor)]
        first = best.best_model_score is None or (task.averaging.n > 0 and not best.averaged)
        if first or score < float(best.best_model_score):  # pyright: ignore[reportArgumentType]
            best.best_model_score = torch.tensor(score)
            trainer.save_checkpoint(file)
        if best.kept:
            best.kept.consider(trainer, score)
    if best.kept:
        assert best.best_model_score is not None
        best.kept.average(trainer, task, float(best.best_model_score), file)


def scored_weights(file: Path) -> dict[str, Any]:
    """What result.json says of the scored weights: where they were saved, and of what they are the average."""
    saved = torch.load(file, map_location="cpu", weights_only=False)
    averaged = {k: v for k, v in saved.get("averaging", {}).items() if k in ("n", "checkpoints", "single_best")}
    return {"best": {"epoch": saved["epoch"], "step": saved["global_step"]}, "averaged": averaged or None}


def place_of(file: Path) -> tuple[int, dict[str, Any]]:
    """(optimizer step, the training loader's state)"""
    saved = torch.load(file, map_location="cpu", weights_only=False)
    [loader] = saved["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    return saved["global_step"], loader
