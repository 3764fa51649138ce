"""A timed training step. Needs PyTorch only: other libraries' environments import it too."""

import ctypes
import statistics
import time
from typing import NamedTuple

import torch
from torch import Tensor, nn

SHORTEST = 0.8  # of the longest utterance in a batch: what sorting by duration leaves
BATCH = 8  # utterances


class Timing(NamedTuple):
    """Medians of one turn.

    `step_s` is what is compared: processor time on one CPU thread, which other work on the machine leaves alone, and
    wall time where several threads or a GPU work.
    """

    step_s: float
    wall_s: float
    cpu_s: float  # of all threads of this process
    n_steps: int


class TrainingStep:
    """Forward and backward of `model(x (B,U,D), lens (B,)) -> (B,U',D')`: no loss, no optimizer.

    The gradient that comes from above is fixed noise: that of a plain sum is zero behind a layer norm.
    """

    def __init__(self, model: nn.Module, x: Tensor, lens: Tensor, precision: str):
        self.model, self.x, self.lens = model.train(), x, lens
        self.dtype = getattr(torch, precision)
        self.gradient: Tensor | None = None

    def __call__(self) -> None:
        self.model.zero_grad()
        self.x.grad = None
        with torch.autocast(self.x.device.type, self.dtype, enabled=self.dtype != torch.float32):
            hidden = self.model(self.x, self.lens)
        if self.gradient is None:
            self.gradient = torch.randn(hidden.shape, device=hidden.device).to(hidden.dtype)
        hidden.backward(self.gradient)


def batch(n_frames: int, width: int, device: str, n: int = BATCH, same_length: bool = False) -> tuple[Tensor, Tensor]:
    """Noise (B, n_frames, width) and lengths (B,): from `n_frames` down, evenly."""
    shortest = n_frames if same_length else round(SHORTEST * n_frames)
    lens = torch.linspace(n_frames, shortest, n).round().long()
    return torch.randn(n, n_frames, width).to(device), lens.to(device)


def timed(step: TrainingStep, seconds: float, most: int = 1000) -> Timing:
    """Steps for about `seconds`, at least one."""
    walls, cpus = [], []
    end = time.perf_counter() + seconds
    while not walls or (time.perf_counter() < end and len(walls) < most):
        synchronise(step.x.device)
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        synchronise(step.x.device)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    wall, cpu = statistics.median(walls), statistics.median(cpus)
    alone = step.x.device.type == "cpu" and torch.get_num_threads() == 1
    return Timing(cpu if alone else wall, wall, cpu, len(walls))


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def keep_freed_memory() -> None:
    """What asr_lab.process.keep_freed_memory sets, for environments without asr_lab."""
    libc = ctypes.CDLL("libc.so.6")
    for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-2, 64 << 20)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
        libc.mallopt(parameter, value)
