"""Follows gradients through time in an encoder's recurrent cells, now and then, on one training utterance."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from asr_lab.gradients.through_time import ThroughTime, log_gain, read_through_time
from asr_lab.layers.recurrence import Recurrence


class NoProbe(Callback):
    """Follows nothing."""

    def __init__(self, folder: Path):
        pass


class ThroughTimeProbe(Callback):
    """Writes through_time.npz: the gain of each recurrent cell of the encoder over time lags, before the first step, at
    every `every`-th and after the last one (gradients/through_time.py). An encoder without such cells gets no file.

    The utterance is the longest of the training split's first `AMONG`, as the first epoch hears it, of which a cell
    reads 4 `n_lags` frames at most. It runs in evaluation; random numbers, gradients and statistics of the training
    stay as they are. A direction of a bidirectional layer is a cell of its own, whose lags go its way.
    """

    AMONG = 100

    def __init__(self, folder: Path, every: int, n_lags: int, n_frames: int, n_directions: int, max_rows: int):
        counts = {"every": every, "n_lags": n_lags, "n_frames": n_frames, "n_directions": n_directions}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"through_time.{name} must be at least 1, {count} came")
        self.file = Path(folder) / "through_time.npz"
        self.every, self.n_lags, self.n_frames, self.n_directions = every, n_lags, n_frames, n_directions
        self.max_rows = max_rows
        self.found: ThroughTime | None = None
        self._cells: dict[str, Recurrence] = {}
        self._batch: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        encoder = getattr(pl_module, "encoder", nn.Module())
        self._cells = {f"encoder.{n}": m for n, m in encoder.named_modules() if isinstance(m, Recurrence)}
        if not self._cells or not trainer.is_global_zero:
            self._cells = {}
            return
        dataset = trainer.train_dataloader.dataset  # pyright: ignore[reportOptionalMemberAccess]
        n = min(self.AMONG, len(dataset))
        longest = max(range(n), key=lambda i: dataset.utterances[i].duration)
        self._batch = dataset[0, [longest]]
        steps: int = pl_module.tally.steps  # pyright: ignore
        self.found = ThroughTime(list(self._cells), self.max_rows)
        if steps and self.file.exists():
            before = read_through_time(self.file, self.max_rows)
            if before.cells == self.found.cells:
                self.found = before
                self.found.cut(steps)
        elif not steps:
            self._probe(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._cells and pl_module.tally.steps % self.every == 0:  # pyright: ignore
            self._probe(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._cells:
            self._probe(trainer, pl_module)

    def _probe(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.found is not None
        step: int = pl_module.tally.steps  # pyright: ignore
        if step in self.found.steps[-1:]:  # a batch that only accumulated, or the last step
            return
        generator = torch.Generator().manual_seed(0)  # the same directions at every step
        with _undisturbed(pl_module), torch.autocast(pl_module.device.type, enabled=False):
            logs = []
            for read, cell in zip(self._inputs(trainer, pl_module), self._cells.values(), strict=True):
                x = read[: 4 * self.n_lags].to(next(cell.parameters()).dtype)
                logs.append(log_gain(cell, x, self.n_lags, self.n_frames, self.n_directions, generator).float())
            self.found.add(step, torch.stack(logs).cpu().numpy())
        self.found.write(self.file)

    def _inputs(self, trainer: Trainer, pl_module: LightningModule) -> list[Tensor]:
        """What each cell reads of the utterance, (U,D_in)"""
        read: dict[str, Tensor] = {}

        def keep(name: str):
            return lambda cell, args: read.__setitem__(name, args[0][0])

        hooks = [cell.register_forward_pre_hook(keep(name)) for name, cell in self._cells.items()]
        try:
            with torch.no_grad():
                batch = trainer.precision_plugin.convert_input(self._batch.to(pl_module.device))
                pl_module.encode(batch)  # pyright: ignore
        finally:
            for hook in hooks:
                hook.remove()
        return [read[name] for name in self._cells]


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """In evaluation, and afterwards everything as it was."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for m, mode in modes.items():
            m.training = mode
