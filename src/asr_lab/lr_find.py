"""Learning-rate range test: a short training whose learning rate grows until the loss does (Smith 2017)."""

import tempfile
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything

from asr_lab.build import build, make
from asr_lab.build_lm import build_lm
from asr_lab.callbacks.seeding import StepSeeds
from asr_lab.errors import ConfigError, ExplodedError
from asr_lab.gradients.range_test import DIVERGED, RangeTest, ramp
from asr_lab.process import keep_freed_memory, n_threads, quieten

SMOOTHING = 0.9  # of the running loss that is held against its best
CONSTANT = {"_target_": "asr_lab.optim.schedules.Constant"}


def range_test(config: dict[str, Any], min_lr: float, max_lr: float, n_steps: int) -> RangeTest:
    """Train a resolved configuration for up to `n_steps` steps from its first weights on, without a schedule and
    without leaving anything.

    Every parameter group's learning rate grows alike. It ends early when the loss is not finite or its running mean is
    `DIVERGED` times the best one.

    Raises:
        ConfigError: the optimizer has no learning rate, or it is 0, or several devices are asked for.
    """
    if config["trainer"].get("devices", 1) != 1:
        raise ConfigError("conf/trainer: lr-find takes one device; add trainer.devices=1 trainer.strategy=auto")
    if config["runtime"]["fast_malloc"]:
        keep_freed_memory()
    quieten()
    torch.set_num_threads(n_threads(config["runtime"]["n_threads"]))
    seed_everything(config["seed"], verbose=False)
    config = config | {"schedule": CONSTANT}
    if "encoder" in config:
        parts = build(config)
        parts.task.distill.prepare(config, parts)
    else:
        parts = build_lm(config)
    growing = _Growing(ramp(min_lr, max_lr, n_steps))
    lengths = {"max_steps": n_steps, "max_epochs": -1, "limit_val_batches": 0}
    node = config["trainer"] | lengths | {"enable_checkpointing": False}
    with tempfile.TemporaryDirectory() as folder:
        trainer = make({"trainer": node}, "trainer")(
            callbacks=[StepSeeds(config["seed"]), growing],
            logger=False,
            default_root_dir=folder,
            enable_progress_bar=False,
        )
        try:
            trainer.fit(parts.task, parts.data.loader("train", 0, 1))
        except ExplodedError:
            growing.diverged = True
    if trainer.interrupted:
        raise KeyboardInterrupt
    losses = np.array(growing.losses)
    return RangeTest(growing.lrs[: len(losses)], losses, growing.diverged)


class _Growing(Callback):
    """Sets the learning rate before each step and keeps the loss, which is that of the weights before the step."""

    def __init__(self, lrs: np.ndarray):
        self.lrs = lrs
        self.losses: list[float] = []
        self.diverged = False
        self._shares: list[float] = []
        self._loss = 0.0  # of the batches that form the next step
        self._running, self._best = 0.0, float("inf")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        lrs = [group.get("lr") for group in trainer.optimizers[0].param_groups]
        first = lrs[0]
        if not all(isinstance(lr, float | int) for lr in lrs) or not first:
            raise ConfigError(f"conf/optimizer: its lr is {first}; give a positive one, the test then sets its own")
        self._shares = [lr / first for lr in lrs]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        groups = trainer.optimizers[0].param_groups
        for group, share in zip(groups, self._shares, strict=True):
            group["lr"] = share * float(self.lrs[len(self.losses)])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._loss += float(outputs["loss"])  # its share of the step's
        if trainer.global_step == len(self.losses):
            return
        loss, self._loss = self._loss, 0.0
        if not np.isfinite(loss):
            self.diverged = trainer.should_stop = True
            return
        self.losses.append(loss)
        self._running = SMOOTHING * self._running + (1 - SMOOTHING) * loss
        mean = self._running / (1 - SMOOTHING ** len(self.losses))
        self._best = min(self._best, mean)
        if mean > DIVERGED * self._best:
            self.diverged = trainer.should_stop = True
