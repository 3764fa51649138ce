"""What every training shares, whatever is learnt: three stages of one step, clipping, the optimizer, checkpoints."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import Metric

from asr_lab.clipping import Clipper, global_norm, gradients
from asr_lab.errors import ExplodedError
from asr_lab.optim.groups import parameter_groups
from asr_lab.optim.tally import Tally, leaves_out
from asr_lab.types import ClipReport

# Steps between two looks at whether a training on a GPU has exploded: each look waits for the device.
LOOK_EVERY = 64


class Task(LightningModule):
    """Trains whatever modules a subclass holds, by the loss of its `step`, and scores it with its metrics.

    Logged keys: what `step` logs, `<stage>/<name>` for each value of the metrics in val and test, and of every training
    step `train/grad_norm`, `train/grad_norm_after`, `train/clipped`, `train/nonfinite` (so far), `train/lr`.
    """

    unit: str  # what a batch is measured in; result.json has it as <unit>_per_second
    val_rates: Metric  # one a split, reset after each epoch
    test_rates: Metric

    def __init__(
        self,
        optimizer: Callable[..., torch.optim.Optimizer],
        weight_decay: float,
        schedule: Callable[..., Callable[[int], float]],
        clipper: Clipper,
        max_nonfinite_steps: int,
    ):
        super().__init__()
        self.make_optimizer, self.weight_decay, self.make_schedule = optimizer, weight_decay, schedule
        self.clipper, self.max_nonfinite_steps = clipper, max_nonfinite_steps
        # What using the trained weights takes beside them; saved in every checkpoint.
        self.belongings: dict[str, Any] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {"val": [], "test": []}  # one an utterance, of the present epoch
        self.validated_step = -1
        # Called after the clipping of each step: step from 0, lr, loss scale, and on the device loss, norm before and
        # after, clipped, skipped, (5,). See callbacks/gradients.py.
        self.listeners: list[Callable[[int, float, float, Tensor], None]] = []
        self.diagnosis = ""  # what a watcher found out of a step that was not finite
        self._loss = torch.zeros(())
        self.tally = Tally()

    @property
    def counts(self) -> dict[str, int]:
        """Of the whole training, restored from a checkpoint: `Tally.read`."""
        return self.tally.read()

    def step(self, batch: Any, stage: str) -> Tensor:
        """Loss of a batch, (); in val and test it also adds to `rates(stage)` and `rows[stage]`."""
        raise NotImplementedError

    def amount(self, batch: Any) -> float:
        """How much a batch is, in `unit`."""
        raise NotImplementedError

    # One step for three stages

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.step(batch, "train")
        self._loss = loss.detach()
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.step(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.step(batch, "test")

    def rates(self, stage: str) -> Metric:
        return self.val_rates if stage == "val" else self.test_rates

    # Some optimizers (schedule-free) train at other weights than those that are scored and kept.

    def on_train_start(self) -> None:
        self._optimize("train")

    def on_validation_start(self) -> None:
        self._optimize("eval")

    def on_validation_end(self) -> None:
        if self.trainer.state.fn == "fit":  # after the callbacks, which have saved what was scored
            self._optimize("train")

    def on_train_end(self) -> None:
        self._optimize("eval")

    def _optimize(self, mode: str) -> None:
        for optimizer in self.trainer.optimizers:
            if hasattr(optimizer, mode):
                getattr(optimizer, mode)()

    def on_validation_epoch_start(self) -> None:
        self.rows["val"].clear()

    def on_test_epoch_start(self) -> None:
        self.rows["test"].clear()

    def on_validation_epoch_end(self) -> None:
        self._log_rates("val")
        if self.trainer.state.fn == "fit":
            self.validated_step = self.trainer.global_step

    def on_test_epoch_end(self) -> None:
        self._log_rates("test")

    def _log_rates(self, stage: str) -> None:
        metric = self.rates(stage)
        for name, value in metric.compute().items():
            # The metric has summed over processes itself; they are on the bar because one chooses the checkpoint.
            self.log(f"{stage}/{name}", value, prog_bar=stage == "val", rank_zero_only=False, sync_dist=False)
        metric.reset()

    # Clipping and optimisation

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Lightning's hook between backward and the update, after gradients were unscaled: all parameter groups."""
        if getattr(optimizer, "probing", False):  # not the gradient of the step (optim/sam.py)
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # Looked for before clipping: scaling by a NaN norm would spread one bad element over every weight.
        norm = global_norm(gradients(parameters))
        finite = norm.isfinite()
        if leaves_out(optimizer):
            report = self.clipper(parameters)
            skip = ~finite if report.skip is None else report.skip | ~finite
            optimizer.found_inf = skip.float()
        else:  # asks the device
            report = self.clipper(parameters) if finite else ClipReport(norm, norm, torch.zeros_like(finite))
            skip = ~finite if report.skip is None else report.skip | ~finite
            if skip:
                _forget(parameters)
        self.tally.add(report.clipped, skip, finite)
        self._tell(optimizer.param_groups[0]["lr"], report, skip)
        if norm.device.type == "cpu" or self.tally.steps % LOOK_EVERY == 0:
            self._refuse_to_explode(norm)

    def _refuse_to_explode(self, norm: Tensor) -> None:
        counts = self.counts
        if counts["nonfinite_longest"] > self.max_nonfinite_steps:
            raise ExplodedError(
                f"gradient norm {norm.item()} in {counts['nonfinite_longest']} steps in a row (at step "
                f"{counts['steps']}); {self.diagnosis or 'lower optimizer.lr, or choose a smaller clipping.threshold'}"
            )

    def _tell(self, lr: float, report: ClipReport, skip: Tensor) -> None:
        values = {
            "train/grad_norm": report.norm_before,
            "train/grad_norm_after": report.norm_after,
            "train/clipped": report.clipped.float(),
            "train/nonfinite": self.tally.nonfinite.float(),
            "train/lr": torch.tensor(lr),  # a number would be sent to the device
        }
        self.log_dict(values, on_step=True, on_epoch=False)
        if self.listeners:
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            numbers = (self._loss.to(report.norm_before), report.norm_before, report.norm_after, report.clipped, skip)
            row = torch.stack([x.detach().float() for x in numbers])
            for listener in self.listeners:
                listener(self.tally.steps - 1, lr, scaler.get_scale() if scaler else 1.0, row)

    def configure_optimizers(self) -> Any:
        if hasattr(self.clipper, "attach"):
            self.clipper.attach(self)  # pyright: ignore[reportAttributeAccessIssue]
        optimizer = self._make_optimizer(parameter_groups(self, self.weight_decay))
        given = {"total_steps": int(self.trainer.estimated_stepping_batches)}
        if "steps_per_epoch" in inspect.signature(self.make_schedule).parameters:
            given["steps_per_epoch"] = math.ceil(
                self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
            )
        scheduler = {"scheduler": LambdaLR(optimizer, self.make_schedule(**given)), "interval": "step", "name": "lr"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def _make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        # A fused kernel would take gradients that are still scaled, and clipping must not.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        fused = scaled and "fused" in inspect.signature(self.make_optimizer).parameters
        return self.make_optimizer(groups, fused=False) if fused else self.make_optimizer(groups)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch.to(device, non_blocking=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["counts"] = self.counts
        checkpoint["belongings"] = self.belongings
        checkpoint["clipper"] = self.clipper.state_dict() if hasattr(self.clipper, "state_dict") else None  # pyright: ignore

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.tally.load(checkpoint["counts"])
        if checkpoint["clipper"] is not None:
            self.clipper.load_state_dict(checkpoint["clipper"])  # pyright: ignore


def _forget(parameters: list[Tensor]) -> None:
    """Without gradients an optimizer leaves weights, moments and decay alone."""
    for p in parameters:
        p.grad = None
