"""Watches a training for signs of trouble, and keeps the evidence of the first numbers that are not finite."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from asr_lab.callbacks.gradients import layer_names
from asr_lab.gradients.detect import Finding, Limits
from asr_lab.gradients.findings import Findings
from asr_lab.gradients.forensics import judge, write_incident
from asr_lab.gradients.incidents import Incidents, Step, evidence, folder_of
from asr_lab.gradients.looks import Looks, norms_of
from asr_lab.gradients.replay import Micro
from asr_lab.gradients.units import UnitWatch

log = logging.getLogger(__name__)

# Steps whose gradient norms are kept for a forensic folder.
LAST = 50
# Log lines about one kind of finding in one layer; all findings are in the file.
LINES = 3


class NoWatch(Callback):
    """Watches nothing."""

    def __init__(self, folder: Path, tell: Callable[..., Any]):
        pass


class Watch(Callback):
    """Writes findings.jsonl (rows of `Finding`) and forensics/step_<n>/ (gradients/forensics.py), and tells result.json
    `findings`, one row a kind and layer, and `nonfinite`, the verdict on the first step that was not finite.

    At every `every`-th step units, layers and weights are looked at; other steps wait for nothing. No number of the
    training is changed.

    Args:
        folder: the run's.
        tell: called with what result.json is to say.
        looks: in a row, that must agree on a layer or its units.
        max_findings: rows that are kept.
        max_incidents: forensic folders.
    """

    def __init__(
        self,
        folder: Path,
        tell: Callable[..., Any],
        every: int,
        looks: int,
        max_findings: int,
        max_incidents: int,
        limits: Limits,
    ):
        for name, value, least in (("every", every, 1), ("looks", looks, 1), ("max_incidents", max_incidents, 0)):
            if value < least:
                raise ValueError(f"detectors.{name} must be at least {least}, {value} came")
        self.folder, self.file, self.tell = Path(folder), Path(folder) / "findings.jsonl", tell
        self.every, self.n_looks, self.max_incidents, self.limits = every, looks, max_incidents, limits
        self.findings = Findings(max_findings)
        self.nonfinite: dict[str, Any] | None = None
        self._looks: Looks | None = None  # None until training is set up
        self._micros: list[Micro] = []
        self._stepped = True
        self._norms = torch.zeros(0)
        self._weights: list[Tensor] = []
        self._waiting: list[Step] = []  # their numbers are fetched together
        self._ids: deque[tuple[int, tuple[str, ...]]] = deque(maxlen=every + 1)
        self._last: deque[tuple[int, Tensor]] = deque(maxlen=LAST)

    # Lightning's hooks, in the order of a step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or self._looks is not None:
            return
        names = layer_names(pl_module)
        layers = list(dict.fromkeys(names))
        self._parameters = [p for p in pl_module.parameters() if p.requires_grad]
        self._looks = Looks(layers, [layers.index(name) for name in names], self.n_looks, self.limits)
        self._units = UnitWatch(pl_module, self.limits.saturated_at)
        self._trainer, self._task = trainer, pl_module
        limit: int = pl_module.max_nonfinite_steps  # pyright: ignore
        self._incidents = Incidents(self.max_incidents, limit, self._examine)
        pl_module.listeners.append(self.on_step)  # pyright: ignore

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not pl_module.tally.steps and trainer.is_global_zero:  # pyright: ignore
            self.file.unlink(missing_ok=True)
            self._say()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._stepped:
            self._micros, self._stepped = [], False
            if self._is_look:
                self._units.attach()
        # The callback that seeds every batch comes before this one.
        self._micros.append(Micro(batch, torch.initial_seed()))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._units.detach()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """After backward and unscaling, before clipping."""
        if getattr(optimizer, "probing", False):
            return
        self._norms = norms_of([p.grad for p in self._parameters])
        if self._is_look:
            self._weights = [p.detach().clone() for p in self._parameters]

    def on_step(self, step: int, lr: float, loss_scale: float, numbers: Tensor) -> None:
        """Called by the task after clipping, before the weights move."""
        self._stepped = True
        taken = Step(step, lr, loss_scale, numbers, self._norms, tuple(self._micros))
        self._ids.append((step, tuple(i for m in self._micros for i in m.batch.ids)))
        self._last.append((step, self._norms))
        self._waiting.append(taken._replace(micros=()))
        self._incidents.add(taken, self._is_scaled)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._weights and self._stepped:
            self._look()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._looks is not None:
            self._units.detach()
            self._end()

    def state_dict(self) -> dict[str, Any]:
        if self._looks is None:
            return {}
        self._read_steps()
        found = {"looks": self._looks.state_dict(), "findings": self.findings.state_dict()}
        return found | {"nonfinite": self.nonfinite, "n_examined": self._incidents.n_examined}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._looks is None or not state_dict:  # scoring a checkpoint
            return
        self._looks.load_state_dict(state_dict["looks"])
        steps = state_dict["looks"]["steps"]
        self.findings.restore(self.file, steps[-1][0] + 1 if steps else 0, state_dict["findings"])
        self.nonfinite, self._incidents.n_examined = state_dict["nonfinite"], state_dict["n_examined"]

    # Looks

    @property
    def _is_look(self) -> bool:
        return self._task.tally.steps % self.every == 0  # pyright: ignore

    @property
    def _is_scaled(self) -> bool:
        return getattr(self._trainer.precision_plugin, "scaler", None) is not None

    def _look(self) -> None:
        """After the step's weights have moved."""
        assert self._looks
        moved = torch._foreach_sub([p.detach() for p in self._parameters], self._weights)  # pyright: ignore
        lengths = torch.stack([norms_of(list(moved)), norms_of(self._weights)]).cpu().numpy()
        self._weights = []
        step, lr, skipped = self._waiting[-1].step, self._waiting[-1].lr, bool(self._waiting[-1].numbers[4])
        self._read_steps()
        norms = self._last_norms()
        found = self._looks.of_steps(dict(self._ids), norms) + self._looks.of_layers(step, norms)
        if not skipped:
            found += self._looks.of_weights(step, lr, *lengths)
        for name, units in self._units.read().items():
            found += self._looks.of_units(step, name, units)
        self._add(found, {"loss_spike", "exploding", "vanishing", "stalled", "dead", "saturated"})

    def _read_steps(self) -> None:
        """What waits on the device."""
        if self._waiting:
            assert self._looks
            values = torch.stack([x.numbers[:2] for x in self._waiting]).tolist()
            rows = [(x.step, loss, norm) for x, (loss, norm) in zip(self._waiting, values, strict=True)]
            self._looks.add_steps(rows, max(x.lr for x in self._waiting))
            self._waiting = []

    def _last_norms(self) -> np.ndarray:
        """(K,P) of the last steps"""
        return torch.stack([norms for _, norms in self._last]).cpu().numpy()

    def _add(self, found: list[Finding], kinds: set[str]) -> None:
        new = self.findings.add(found, kinds)
        if not new or not self._trainer.is_global_zero:
            return
        for finding in new:
            if self.findings.count(finding) <= LINES:
                log.warning("step %d: %s", finding.step, finding.text)
        with _forgiven():
            self.findings.write(self.file)
        self._say()

    def _end(self) -> None:
        """Steps since the last look, and those whose numbers are still on their way."""
        assert self._looks
        self._incidents.finish(self._is_scaled)
        if self._waiting:
            self._read_steps()
            self._add(self._looks.of_steps(dict(self._ids), self._last_norms()), {"loss_spike", "exploding"})
        self._say()

    def _say(self) -> None:
        if self._trainer.is_global_zero:
            with _forgiven():
                self.tell(findings=self.findings.summary(), nonfinite=self.nonfinite)

    # Incidents

    def _examine(self, step: Step, numbers: list[float], n_later: int) -> None:
        assert self._looks
        self._units.detach()
        trainer, task, plugin = self._trainer, self._task, self._trainer.precision_plugin
        with _forgiven():
            verdict = judge(task, step.micros, str(trainer.precision), plugin.forward_context, step.loss_scale)
            if verdict.kind == "not_reproduced" and trainer.world_size > 1:
                verdict = verdict._replace(text=f"{verdict.text}; another process may have had the batch (.rank<n>)")
            folder = folder_of(self.folder, step.step, trainer.global_rank)
            log.warning("step %d is not finite: %s", step.step, verdict.text)
            task.diagnosis = verdict.text  # pyright: ignore
            said = {"step": step.step, "verdict": verdict.text, "folder": str(folder.relative_to(self.folder))}
            self.nonfinite = self.nonfinite or said
            self._say()
            report = evidence(step, numbers, n_later, task, verdict, str(trainer.precision))
            steps, norms = [s for s, _ in self._last], self._looks.by_layer(self._last_norms())
            write_incident(folder, report, steps, norms, self._looks.layers, task, step.micros)


@contextmanager
def _forgiven() -> Iterator[None]:
    """Evidence that cannot be written (disk full), or taken (memory), must neither end a training nor hide its end."""
    try:
        yield
    except Exception as error:
        log.warning("detectors: %s", " ".join(str(error).split())[:300])
