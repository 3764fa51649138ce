"""Records what gradients and clipping do, step by step, without waiting for the device."""

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from asr_lab.errors import DataError
from asr_lab.gradients.advice import summary
from asr_lab.gradients.look import Looker
from asr_lab.gradients.record import Record, read_record
from asr_lab.gradients.sample import Sample, layer_of

log = logging.getLogger(__name__)

# Steps whose numbers are fetched from the device together.
TOGETHER = 64


def layer_names(module: nn.Module) -> list[str]:
    """Of each trainable parameter, in order, the layer it is reported with; see `layer_of`."""
    return [layer_of(name) for name, p in module.named_parameters() if p.requires_grad]


class NoRecorder(Callback):
    """Records nothing."""

    def __init__(self, folder: Path):
        pass

    def summary(self, counts: dict[str, int]) -> None:
        """Nothing for result.json."""


class GradientRecorder(Callback):
    """Writes gradients.npz, a `Record`: every step's norms before and after clipping, and a close look at every
    `every`-th step.

    Numbers stay on the device for `TOGETHER` steps and are copied while later steps run; a step waits for nothing. In
    distributed training the first rank records alone: gradients are the same everywhere when they are clipped.
    """

    def __init__(self, folder: Path, every: int, max_rows: int, max_looks: int, n_elements: int, n_units: int):
        for name, value in (("every", every), ("n_elements", n_elements), ("n_units", n_units)):
            if value < 1:
                raise ValueError(f"gradients.{name} must be at least 1, {value} came")
        self.file, self.every, self.n_elements, self.n_units = (
            Path(folder) / "gradients.npz",
            every,
            n_elements,
            n_units,
        )
        self.make_record: Callable[[Sample], Record] = lambda sample: Record(sample, max_rows, max_looks)
        self.make_record(Sample((), *[np.zeros(0, np.int64)] * 4))  # a bad limit is said before training
        self.record: Record | None = None
        self.looker: Looker | None = None
        self._written = -1
        self._waiting: list[tuple[int, float, float, Tensor]] = []  # step, lr, loss scale, numbers on the device
        # Copies under way, and what takes each when it is there.
        self._copied: deque[tuple[Tensor, Any, Callable[[np.ndarray], None]]] = deque()
        self._histograms = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or self.record is not None or not trainer.is_global_zero:
            return
        parameters = {name: p for name, p in pl_module.named_parameters() if p.requires_grad}
        self.looker = Looker(parameters, self.n_elements, self.n_units)
        self.record = self.make_record(self.looker.sample)
        pl_module.listeners.append(self.on_step)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.record is None or self.looker is None:
            return
        self.looker.to(pl_module.device)
        steps: Any = pl_module.tally.steps  # pyright: ignore
        if steps and self.file.exists():
            try:
                before = read_record(self.file, self.record.max_rows, self.record.max_looks)
            except DataError as error:  # no reason not to train
                log.warning("%s; its earlier steps are lost", error)
                return
            if _same(before, self.record):
                self.record = before
                self.record.cut(steps)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.looker and pl_module.tally.steps % self.every == 0:  # pyright: ignore
            self.looker.before()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self.looker and not getattr(optimizer, "probing", False):
            self.looker.gradients()

    def on_step(self, step: int, lr: float, loss_scale: float, numbers: Tensor) -> None:
        """Called by the task after clipping: `numbers` (5,) loss, norms before and after, clipped, skipped"""
        self._waiting.append((step, lr, loss_scale, numbers))
        if len(self._waiting) >= TOGETHER:
            self._fetch()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        look = self.looker.after() if self.looker else None
        if look is not None:
            step = pl_module.tally.steps - 1  # pyright: ignore
            assert self.record is not None
            self._copy(look, lambda numbers, step=step: self.record.look(step, numbers))  # pyright: ignore

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self.write()
            self._draw(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A training that goes on from this checkpoint finds its steps."""
        if trainer.state.fn == "fit":
            self.write()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.write()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """What led to an explosion is what one wants to see."""
        try:
            self.write()
        except Exception as error:  # must not hide what is being reported
            log.warning("gradients were not recorded to the end (%s)", error)

    def write(self) -> None:
        """
        Raises:
            DiskFullError: no space; an older file stays.
        """
        if self.record is None:
            return
        self._fetch()
        self._take(wait=True)
        newest = int(self.record.steps[-1]) if len(self.record.steps) else -1
        if newest != self._written or not self.file.exists():  # several checkpoints are saved at a time
            self.record.write(self.file)
            self._written = newest

    def summary(self, counts: dict[str, int]) -> dict[str, Any] | None:
        """For result.json, once training has ended."""
        return None if self.record is None else summary(self.record, counts)

    def _draw(self, trainer: Trainer) -> None:
        from asr_lab.tracking.histograms import log_histograms

        if self.record is None or not self._histograms or not len(self.record.looked):
            return
        layers = np.array([layer_of(name) for name in self.record.sample.parameters])[self.record.sample.element_of]
        last = self.record.looks["elements"][-1]
        of_layer = {name: last[layers == name] for name in dict.fromkeys(layers.tolist())}
        self._histograms = log_histograms(trainer.loggers, of_layer, trainer.global_step)

    def _fetch(self) -> None:
        self._take(wait=False)
        if self._waiting:
            rows = [(step, lr, scale) for step, lr, scale, _ in self._waiting]
            self._copy(torch.stack([numbers for *_, numbers in self._waiting]), lambda found: self._add(rows, found))
            self._waiting = []

    def _add(self, rows: list[tuple[int, float, float]], numbers: np.ndarray) -> None:
        assert self.record is not None
        self.record.add([row[0] for row in rows], np.column_stack([numbers, [row[1:] for row in rows]]))

    def _copy(self, numbers: Tensor, take: Callable[[np.ndarray], None]) -> None:
        done = None
        if numbers.is_cuda:
            numbers = numbers.to("cpu", non_blocking=True)  # into pinned memory
            done = torch.cuda.Event()
            done.record()
        self._copied.append((numbers, done, take))

    def _take(self, wait: bool) -> None:
        while self._copied and (wait or self._copied[0][1] is None or self._copied[0][1].query()):
            numbers, done, take = self._copied.popleft()
            if done is not None:
                done.synchronize()
            take(numbers.numpy())


def _same(a: Record, b: Record) -> bool:
    """Whether their rows can follow each other."""
    return all(np.array_equal(x, y) for x, y in zip(a.sample, b.sample, strict=True)) and set(a.looks) == set(b.looks)
