"""Keeps the checkpoints of which a mean is made after training (averaging=checkpoints)."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from asr_lab.averaging.checkpoints import CheckpointAverage
from asr_lab.averaging.running import mean_of
from asr_lab.errors import RunError


class KeptCheckpoints(Checkpoint):
    """After each validation the weights are saved if they count so far. Those that no longer count are deleted only
    after the next `last` checkpoint, in which that is written down: a run that is killed finds all that it needs.
    """

    def __init__(self, averaging: CheckpointAverage, folder: Path, score: str):
        self.averaging, self.folder, self.score = averaging, Path(folder), f"val/{score}"
        self.kept: dict[int, dict[str, Any]] = {}  # step -> epoch and score
        self._tidy = False

    @classmethod
    def of(cls, averaging: Any, folder: Path, score: str) -> "KeptCheckpoints | None":
        """None for a choice that averages no checkpoints."""
        return cls(averaging, folder, score) if isinstance(averaging, CheckpointAverage) else None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.consider(trainer, float(trainer.callback_metrics[self.score]))

    def consider(self, trainer: Trainer, score: float) -> None:
        """The present weights and their score."""
        step = trainer.global_step
        if step in self.kept:  # a run that goes on after its end
            return
        found = self.kept | {step: {"epoch": trainer.current_epoch, self.score: score}}
        chosen = self.averaging.chosen({k: v[self.score] for k, v in found.items()})
        if step in chosen:
            trainer.save_checkpoint(self._file(step), weights_only=True)
        self.kept, self._tidy = {k: found[k] for k in chosen}, False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.tidy(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.tidy(trainer)

    def tidy(self, trainer: Trainer) -> None:
        """Delete files that do not count."""
        if trainer.is_global_zero and not self._tidy:
            for file in set(self.folder.glob("mean.*.ckpt")) - {self._file(step) for step in self.kept}:
                file.unlink(missing_ok=True)
        self._tidy = True

    def average(self, trainer: Trainer, task: LightningModule, single_best: float, file: Path) -> None:
        """The task gets the mean, which is written to `file` with what it is made of.

        Raises:
            RunError: a checkpoint is not there or cannot be read.
        """
        steps = sorted(self.kept)
        task.load_state_dict(mean_of(self._state(step) for step in steps))
        made_of = [{"step": step, **self.kept[step]} for step in steps]
        self.averaging.made = {"checkpoints": made_of, "single_best": {self.score: single_best}}
        self.tidy(trainer)
        trainer.save_checkpoint(file)

    def clear(self) -> None:
        """The run is done: delete what `keep_files` does not want to stay."""
        if not self.averaging.keep_files:
            for step in self.kept:
                self._file(step).unlink(missing_ok=True)

    def _state(self, step: int) -> dict[str, Any]:
        try:
            return torch.load(self._file(step), map_location="cpu", weights_only=False)["state_dict"]
        except (OSError, RuntimeError, KeyError, EOFError) as error:
            raise RunError(
                f"{self._file(step)}: cannot be averaged ({error}); train again with runtime.rerun=true"
            ) from None

    def _file(self, step: int) -> Path:
        return self.folder / f"mean.{step}.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.kept = state_dict["kept"]
