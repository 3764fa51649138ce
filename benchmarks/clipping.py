"""What each clipping choice costs: beside an AdamW step, a training step of the small Conformer, and torch's functions.

    python benchmarks/clipping.py [--rounds 21] [--device cuda] [--json FILE]

All choices of conf/clipping take turns on the gradients of one real backward pass, on one thread, each with its own
values and with a memory that is full. `task` is what the training task does around a choice (counts, the skipping of
steps), `recorder` what conf/gradients/record.yaml adds, its rarer looks spread over all steps. On a CPU the clock is
processor time, which other work on the machine leaves mostly alone; quartiles tell how much.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from asr_lab.base_task import Task
from asr_lab.build import make
from asr_lab.environment import environment
from asr_lab.files import write_json
from asr_lab.optim.groups import parameter_groups
from asr_lab.paths import conf_dir
from asr_lab.process import keep_freed_memory
from encoder_speed.built import FRAMES_PER_S, N_MELS, Hidden, config_of, encoder
from encoder_speed.stepping import TrainingStep, batch, synchronise

UTTERANCES, UTTERANCE_S = 4, 6  # a batch of conf/batching's 24 seconds
LIMIT = 0.02  # of a training step
NAMES = sorted(p.stem for p in (conf_dir() / "clipping").glob("*.yaml"))
# What torch has, and ours that does the same.
TORCH = {
    "norm": lambda parameters: torch.nn.utils.clip_grad_norm_(parameters, 1.0),
    "value": lambda parameters: torch.nn.utils.clip_grad_value_(parameters, 0.01),
}


def main() -> None:
    options = _options()
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.device, Path(folder))
        times: dict[str, list[float]] = {}
        for n in range(options.rounds + 1):
            for name, seconds in bench.turn().items():
                if n:  # the first round warms up
                    times.setdefault(name, []).append(seconds)
    results = {
        "about": {**environment(), "load": [round(load, 1), round(os.getloadavg()[0], 1)], "rounds": options.rounds},
        "model": bench.about(),
        "limit": LIMIT,
        "rows": rows(times),
    }
    show(results, Console())
    if options.json:
        write_json(options.json, results)


class Bench:
    """One small Conformer, its batch, its gradients, and everything that is timed on them."""

    def __init__(self, device: str, folder: Path):
        self.device = torch.device(device)
        self.task = _Task(encoder("encoder=conformer", "size=small").to(device))
        self.parameters = [p for p in self.task.parameters() if p.requires_grad]
        x, lens = batch(UTTERANCE_S * FRAMES_PER_S, N_MELS, device, UTTERANCES, same_length=True)
        self.step = TrainingStep(Hidden(self.task.encoder), x, lens, "float32")
        self.optimizer = torch.optim.AdamW(parameter_groups(self.task, 0.01), lr=1e-6, fused=True)
        self.step()
        self.grads = [p.grad.clone() for p in self.parameters if p.grad is not None]
        self.clippers = {name: _with_a_memory(_made("clipping", name), self.task) for name in NAMES}
        self.recorder = _made("gradients", "record")(folder=folder)
        self.trainer = SimpleNamespace(precision_plugin=None, is_global_zero=True)
        self.task._trainer = self.trainer  # pyright: ignore
        self.recorder.setup(self.trainer, self.task, "fit")
        self.recorder.on_train_start(self.trainer, self.task)
        self.listeners = list(self.task.listeners)

    def about(self) -> dict[str, Any]:
        return {
            "encoder": "conformer", "size": "small", "utterances": UTTERANCES, "utterance_s": UTTERANCE_S,
            "parameters": sum(p.numel() for p in self.parameters), "tensors": len(self.parameters),
        }  # fmt: skip

    def turn(self) -> dict[str, float]:
        """Seconds of everything once."""
        found = {"forward and backward": self._timed(self.step), "AdamW": self._timed(self.optimizer.step)}
        for name, clipper in self.clippers.items():
            found[name] = self._timed(lambda clipper=clipper: clipper(self.parameters))
        for name, clip in TORCH.items():
            found[f"torch {name}"] = self._timed(lambda clip=clip: clip(self.parameters))
        self.task.clipper = lambda parameters: self.report
        self.report = self.clippers["none"](self.parameters)
        self.task.listeners[:] = []
        found["task"] = self._steps(lambda: None, lambda: None)
        self.task.listeners[:] = self.listeners
        before, after = self.recorder.on_before_optimizer_step, self.recorder.on_train_batch_end
        recorded = self._steps(
            lambda: before(self.trainer, self.task, self.optimizer),
            lambda: after(self.trainer, self.task, None, None, 0),
        )
        return found | {"recorder": recorded - found["task"]}

    def _steps(self, before: Callable[[], Any], after: Callable[[], Any]) -> float:
        """A step of the task, the mean of as many as lie between two of the recorder's looks at the weights."""

        def steps() -> None:
            for _ in range(self.recorder.every):
                before()
                self.task.configure_gradient_clipping(self.optimizer)
                after()

        return self._timed(steps) / self.recorder.every

    def _timed(self, go: Callable[[], Any]) -> float:
        for p, grad in zip(self.parameters, self.grads, strict=True):
            p.grad = grad.clone()
        clock = time.process_time if self.device.type == "cpu" else time.perf_counter
        synchronise(self.device)
        start = clock()
        go()
        synchronise(self.device)
        return clock() - start


class _Task(Task):
    def __init__(self, encoder: torch.nn.Module):
        super().__init__(torch.optim.AdamW, 0.01, lambda total_steps: lambda step: 1.0, _made("clipping", "none"), 20)
        self.encoder = encoder

    def log_dict(self, dictionary: Any, **how: Any) -> None:  # there is no trainer
        pass


def _made(group: str, name: str) -> Any:
    return make(config_of(f"{group}={name}"), group)


def _with_a_memory(clipper: Any, task: Task) -> Any:
    """As after many steps."""
    if hasattr(clipper, "attach"):
        clipper.attach(task)
    if hasattr(clipper, "norms"):
        window: Tensor = clipper.norms.values
        window.uniform_(0.5, 1.5)
        clipper.norms.count += len(window)
    return clipper


def rows(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Medians and quartiles in ms; the medians as shares of AdamW's and of a whole step, and beside torch's."""
    median = {name: statistics.median(of) for name, of in times.items()}
    step = median["forward and backward"] + median["AdamW"]
    found = {}
    for name, of in times.items():
        low, _, high = statistics.quantiles(of, n=4) if len(of) > 1 else [*of] * 3
        row = {"ms": median[name], "low_ms": low, "high_ms": high}
        found[name] = {key: round(1e3 * value, 3) for key, value in row.items()}
        found[name] |= {"of_adamw": round(median[name] / median["AdamW"], 3), "of_step": round(median[name] / step, 5)}
        if f"torch {name}" in median:
            found[name]["of_torch"] = round(median[name] / median[f"torch {name}"], 2)
    return found


def show(results: dict[str, Any], console: Console) -> None:
    model = results["model"]
    table = Table(title=f"{model['parameters'] / 1e6:.1f} M parameters in {model['tensors']} tensors")
    for column in ("", "ms", "quartiles", "% of AdamW", "% of a step", "x torch"):
        table.add_column(column, justify="right")
    for name, row in results["rows"].items():
        table.add_row(
            name, f"{row['ms']:.2f}", f"{row['low_ms']:.2f} to {row['high_ms']:.2f}", f"{100 * row['of_adamw']:.0f}",
            f"{100 * row['of_step']:.2f}", f"{row['of_torch']:.2f}" if "of_torch" in row else "",
        )  # fmt: skip
    console.print(table)
    over = [n for n in (*NAMES, "recorder") if results["rows"][n]["of_step"] > results["limit"]]
    console.print(f"above {100 * results['limit']:.0f} % of a step: {', '.join(over) or 'none'}")


def _options() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=21)
    arguments.add_argument("--json", type=Path, metavar="FILE")
    arguments.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = arguments.parse_args()
    if options.rounds < 1:
        arguments.error(f"--rounds is a positive count, {options.rounds} came")
    if options.device == "cuda" and not torch.cuda.is_available():
        arguments.error("--device cuda: PyTorch sees no GPU here")
    return options


if __name__ == "__main__":
    main()
