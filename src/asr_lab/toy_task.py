"""The training task of toy landscapes."""

from collections.abc import Callable

import torch
from torch import Tensor

from asr_lab.base_task import Task
from asr_lab.clipping import Clipper
from asr_lab.errors import ExplodedError
from asr_lab.landscapes import Landscape
from asr_lab.metrics.means import Means
from asr_lab.optim.schedules import Schedule
from asr_lab.types import ToyBatch


class ToyTask(Task):
    """The parameters of a landscape, moved towards its optimum.

    Logged keys beside those of every task: `<stage>/loss`, `<stage>/gap` and what else the landscape's `scores` have.
    """

    unit = "batches"

    def __init__(
        self,
        landscape: Landscape,
        optimizer: Callable[..., torch.optim.Optimizer],
        weight_decay: float,
        schedule: Schedule,
        clipper: Clipper,
        max_nonfinite_steps: int,
    ):
        super().__init__(optimizer, weight_decay, schedule, clipper, max_nonfinite_steps)
        self.landscape = landscape
        self.val_rates, self.test_rates = Means(landscape.score_names), Means(landscape.score_names)

    def amount(self, batch: ToyBatch) -> float:
        return 1.0

    def step(self, batch: ToyBatch, stage: str) -> Tensor:
        """Loss of a batch; in val and test also its scores.

        Raises:
            ExplodedError: the weights went so far that their loss is no number.
        """
        if stage == "train":
            loss = self.landscape.loss(*batch.drawn)
            self.log("train/loss", loss, on_step=True, on_epoch=False)
            return loss
        scores = self.landscape.scores(*batch.drawn)
        if not scores["gap"].float().isfinite():  # gradients may still be finite when their squares are not
            raise ExplodedError(
                f"{stage}/gap {scores['gap'].item():.3g} at step {self.tally.steps}; lower optimizer.lr, or choose a "
                "smaller clipping.threshold"
            )
        self.rates(stage).update(scores)
        return scores["loss"]
