"""Records what gradients and clipping do, step by step, without waiting for the device."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from asr_lab.gradients.record import Record, read_record

# Steps whose numbers are fetched from the device together.
TOGETHER = 64


def layer_names(module: nn.Module) -> list[str]:
    """Of each trainable parameter, in order, the layer it is reported with: the path to the first number in its name
    (`encoder.layers.3`), or the first two parts (`encoder.subsampling`, `decoder.output`)."""
    names = []
    for name, p in module.named_parameters():
        if p.requires_grad:
            parts = name.split(".")[:-1]
            cut = next((i + 1 for i, part in enumerate(parts) if part.isdigit()), 2)
            names.append(".".join(parts[:cut]) or name)
    return names


class NoRecorder(Callback):
    """Records nothing."""

    def __init__(self, folder: Path):
        pass


class GradientRecorder(Callback):
    """Writes gradients.npz, a `Record`: every step's norms before and after clipping, and at every `every`-th step the
    gradient norm of each layer before clipping and how far its weights went.

    Numbers stay on the device for `TOGETHER` steps and are copied while later steps run; a step waits for nothing.
    """

    def __init__(self, folder: Path, every: int, max_rows: int):
        if every < 1:
            raise ValueError(f"gradients.every must be at least 1 step, {every} came")
        self.file, self.every, self.max_rows = Path(folder) / "gradients.npz", every, max_rows
        self.record: Record | None = None
        self._parameters: list[Tensor] = []
        self._of_layer: Tensor = torch.zeros(0)
        self._waiting: list[tuple[int, float, float, Tensor]] = []  # step, lr, loss scale, numbers on the device
        self._copied: list[tuple[list[tuple[int, float, float]], Tensor, Any]] = []
        self._norms: Tensor | None = None
        self._weights: list[Tensor] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or self.record is not None:
            return
        names = layer_names(pl_module)
        layers = list(dict.fromkeys(names))
        self._parameters = [p for p in pl_module.parameters() if p.requires_grad]
        self._of_layer = torch.tensor([layers.index(name) for name in names])
        self.record = Record(layers, self.max_rows)
        pl_module.listeners.append(self.on_step)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.record is not None
        self._of_layer = self._of_layer.to(pl_module.device)
        steps = pl_module.tally.steps  # pyright: ignore
        if steps and self.file.exists():
            before = read_record(self.file, self.max_rows)
            if before.layers == self.record.layers:
                self.record = before
                self.record.cut(steps)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """After backward and unscaling, before clipping."""
        steps = pl_module.tally.steps  # pyright: ignore
        if steps % self.every == 0:
            self._norms = self._by_layer([p.grad for p in self._parameters])
            self._weights = [p.detach().clone() for p in self._parameters]

    def on_step(self, step: int, lr: float, loss_scale: float, numbers: Tensor) -> None:
        """Called by the task after clipping: `numbers` (5,) loss, norms before and after, clipped, skipped"""
        self._waiting.append((step, lr, loss_scale, numbers))
        if len(self._waiting) >= TOGETHER:
            self._fetch()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._norms is None:
            return
        assert self.record is not None
        moved = torch._foreach_sub([p.detach() for p in self._parameters], self._weights)  # pyright: ignore
        ratio = self._by_layer(list(moved)) / self._by_layer(self._weights).clamp(min=1e-12)
        step = pl_module.tally.steps - 1  # pyright: ignore
        norms, ratio = (x.float().cpu().numpy() for x in (self._norms, ratio))
        self.record.look(step, norms, ratio)
        self._norms, self._weights = None, []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self.write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """What led to an explosion is what one wants to see."""
        self.write(trainer)

    def write(self, trainer: Trainer) -> None:
        if self.record is not None and trainer.is_global_zero:
            self._fetch()
            self._take(wait=True)
            self.record.write(self.file)

    def _by_layer(self, tensors: list[Tensor | None]) -> Tensor:
        """(L,) 2-norm of each layer's tensors together; none count as 0"""
        norms = torch.zeros(len(tensors), device=self._of_layer.device)
        there = [i for i, x in enumerate(tensors) if x is not None and x.numel()]
        if there:
            found = torch._foreach_norm([tensors[i] for i in there])  # pyright: ignore
            norms[torch.tensor(there, device=norms.device)] = torch.stack([x.float() for x in found])
        assert self.record is not None
        return norms.new_zeros(len(self.record.layers)).index_add(0, self._of_layer, norms.square()).sqrt()

    def _fetch(self) -> None:
        self._take(wait=False)
        if self._waiting:
            numbers = torch.stack([x[3] for x in self._waiting])
            done = None
            if numbers.is_cuda:
                numbers = numbers.to("cpu", non_blocking=True)
                done = torch.cuda.Event()
                done.record()
            self._copied.append(([x[:3] for x in self._waiting], numbers, done))
            self._waiting = []

    def _take(self, wait: bool) -> None:
        assert self.record is not None
        while self._copied and (wait or self._copied[0][2] is None or self._copied[0][2].query()):
            rows, numbers, done = self._copied.pop(0)
            if done is not None:
                done.synchronize()
            for (step, lr, scale), row in zip(rows, numbers.numpy(), strict=True):
                self.record.add(step, np.concatenate([row, [lr, scale]]))
