"""What every training shares, whatever is learnt: three stages of one step, clipping, the optimizer, checkpoints."""

import math
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import Metric

from asr_lab.averaging import Averaging
from asr_lab.averaging.none import NoAveraging
from asr_lab.clipping import Clipper, global_norm, gradients
from asr_lab.errors import ConfigError, ExplodedError, nearest
from asr_lab.optim.groups import parameter_groups
from asr_lab.optim.making import averages, made, refusal
from asr_lab.optim.schedules import Schedule
from asr_lab.optim.statistics import RunningStatistics
from asr_lab.optim.tally import Tally, leaves_out
from asr_lab.optim.told import set_lr
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
        schedule: Schedule,
        clipper: Clipper,
        max_nonfinite_steps: int,
    ):
        super().__init__()
        self.make_optimizer, self.weight_decay, self.schedule = optimizer, weight_decay, schedule
        self.clipper, self.max_nonfinite_steps = clipper, max_nonfinite_steps
        self.averaging: Averaging = NoAveraging()  # train.py gives the run's
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
        self.statistics: RunningStatistics | None = None

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
        if self.statistics is not None:
            self.statistics.keep()
        loss = self.step(batch, "train")
        n_before = batch_idx % self.trainer.accumulate_grad_batches  # batches of the same optimizer step
        self._loss = self._loss + (loss.detach() - self._loss) / (n_before + 1) if n_before else loss.detach()
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.step(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.step(batch, "test")

    def rates(self, stage: str) -> Metric:
        return self.val_rates if stage == "val" else self.test_rates

    # Averages and some optimizers (schedule-free) train at other weights than those that are scored and kept.

    def on_train_start(self) -> None:
        self.statistics = RunningStatistics(self)
        self._optimize("train")

    def on_validation_start(self) -> None:
        if self.trainer.state.fn == "fit":
            self._refuse_to_explode()
        self._optimize("eval")

    def on_validation_end(self) -> None:
        if self.trainer.state.fn == "fit":  # after the callbacks, which have saved what was scored
            self._optimize("train")

    def on_train_end(self) -> None:
        self._refuse_to_explode()
        self._optimize("eval")

    def _optimize(self, mode: str) -> None:
        for optimizer in self.trainer.optimizers:
            if hasattr(optimizer, mode):
                getattr(optimizer, mode)()
        self.averaging.use() if mode == "eval" else self.averaging.release()

    def on_validation_epoch_start(self) -> None:
        self.rows["val"].clear()

    def on_test_epoch_start(self) -> None:
        self.rows["test"].clear()

    def on_validation_epoch_end(self) -> None:
        self._log_rates("val")
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.validated_step = self.trainer.global_step
            if hasattr(self.schedule, "by_scores"):  # before the checkpoints of this validation
                scores = {name: float(self.trainer.callback_metrics[name]) for name in self.scores}
                self.schedule.by_scores(scores, self.validated_step)  # pyright: ignore[reportAttributeAccessIssue]
                set_lr(self.lr_schedulers(), lambda lr: self.schedule(self.validated_step))

    @property
    def scores(self) -> list[str]:
        """What every validation logs: `val/loss` and the values of the metric."""
        metric = self.val_rates  # past the wrapping of torchmetrics, which would warn of nothing counted so far
        return sorted({"val/loss", *(f"val/{name}" for name in type(metric).compute(metric))})

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
        report = self.clipper(parameters)
        # As it was before clipping: that of a step with one bad element, which scaling may spread over all.
        finite = report.norm_before.isfinite()
        report = report._replace(
            norm_after=torch.where(finite, report.norm_after, report.norm_before), clipped=report.clipped & finite
        )
        skip = ~finite if report.skip is None else report.skip | ~finite
        if leaves_out(optimizer):
            optimizer.found_inf = skip.float()  # pyright: ignore[reportAttributeAccessIssue]
        elif skip:  # asks the device
            _forget(parameters)
        if self.statistics is not None:
            self.statistics.take_back(~finite)
        if hasattr(self.schedule, "by_gradient"):  # waits for the device
            loss = self.trainer.strategy.reduce(self._loss.clone(), reduce_op="mean")
            seen = torch.stack([loss.float(), global_norm(gradients(parameters)).to(loss).float()]).tolist()
            set_lr(self.lr_schedulers(), lambda lr: self.schedule.by_gradient(lr, *seen))  # pyright: ignore
        self.tally.add(report.clipped, skip, finite)
        self._tell(optimizer.param_groups[0]["lr"], report, skip)
        if finite.device.type == "cpu" or self.tally.steps % LOOK_EVERY == 0:
            self._refuse_to_explode()

    def _refuse_to_explode(self) -> None:
        counts = self.counts
        if counts["nonfinite_longest"] > self.max_nonfinite_steps:
            raise ExplodedError(
                f"gradient norm nan or inf in {counts['nonfinite_longest']} steps in a row (by step "
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
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        groups = parameter_groups(self, self.weight_decay)
        optimizer = made(self.make_optimizer, groups, scaled, self.trainer.accumulate_grad_batches)
        if averages(optimizer) and self.averaging.trains_on:
            raise ConfigError(
                f"conf/averaging: {type(optimizer).__name__} holds an average of the weights itself; averaging=none"
            )
        n_steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(n_steps):
            raise ConfigError("conf/trainer: max_epochs and max_steps are both -1; set one, schedules need an end")
        steps_per_epoch = math.ceil(
            min(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches, n_steps)
        )
        self.schedule.begin(int(n_steps), steps_per_epoch)
        self.averaging.begin(self, int(n_steps), steps_per_epoch)
        monitor = getattr(self.schedule, "monitor", None)
        if monitor and monitor not in self.scores:
            raise ConfigError(f"schedule.monitor={monitor}: no validation logs it{nearest(monitor, self.scores)}")
        scheduler = {"scheduler": LambdaLR(optimizer, self.schedule), "interval": "step", "name": "lr"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Lightning's, in words for people where an optimizer refuses what a layer of the model gives it."""
        try:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        except (RuntimeError, ValueError) as error:
            refused = refusal(error, self.named_parameters(), optimizer.optimizer)
            if refused is None:
                raise
            raise refused from error
        self.averaging.update(self.trainer.global_step + 1)  # it is counted after this hook

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch.to(device, non_blocking=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["counts"] = self.counts
        checkpoint["belongings"] = self.belongings
        checkpoint["clipper"] = self.clipper.state_dict() if hasattr(self.clipper, "state_dict") else None  # pyright: ignore
        self.averaging.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.tally.load(checkpoint["counts"])
        if checkpoint["clipper"] is not None:
            self.clipper.load_state_dict(checkpoint["clipper"])  # pyright: ignore
        if self.trainer.state.fn == "fit":
            self.averaging.load(checkpoint)
        else:  # from here on the weights are those that were loaded
            self.averaging = NoAveraging()


def _forget(parameters: list[Tensor]) -> None:
    """Without gradients an optimizer leaves weights, moments and decay alone."""
    for p in parameters:
        p.grad = None
