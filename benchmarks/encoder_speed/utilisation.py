"""How much of the machine's matrix speed a training step of each encoder uses."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from asr_lab.cost import macs, n_parameters
from encoder_speed.built import FRAMES_PER_S, N_MELS, Hidden, choices, encoder
from encoder_speed.stepping import BATCH, TrainingStep, batch, synchronise, timed

UTTERANCE_S = 6
SIZES = ("small", "medium")
LIMITS = {"conformer": 0.70, "transformer": 0.75, "bilstm": 0.80}
ROW_S = 8.0  # rounds of a row end then, after three at least


def measure(rounds: int, device: str, console: Console) -> list[dict[str, Any]]:
    """One row for each choice and size; a preset, which ignores size, has one row."""
    product = MatrixProduct(device)
    rows = []
    for name in choices():
        for size in SIZES[: 1 if ignores_size(name) else 2]:
            console.print(f"  utilisation of {name}, {size}")
            rows.append({"encoder": name, "size": size, **_measured(name, size, rounds, device, product)})
    return rows


def ignores_size(name: str) -> bool:
    with torch.device("meta"):
        one, other = (n_parameters(encoder(f"encoder={name}", f"size={size}")) for size in SIZES)
    return one == other


class MatrixProduct:
    """A large square product in float32: what the machine can do, measured beside what is compared with it.

    `torch.mm` is what linear layers call. On a CPU another library inside PyTorch, oneDNN, may be faster: the LSTM uses
    it, so that its share of the speed of `torch.mm` can be above one.
    """

    def __init__(self, device: str):
        self.n = 8192 if device == "cuda" else 2048
        self.a, self.b = torch.randn(2, self.n, self.n, device=device)
        self.ways: list[Callable[[], Any]] = [lambda: torch.mm(self.a, self.b)]
        if device == "cpu" and torch.backends.mkldnn.is_available():
            linear = torch.ops.mkldnn._linear_pointwise
            self.ways.append(lambda: linear(self.a, self.b, None, "none", [], ""))
        for way in self.ways:
            way()

    def flops_per_s(self) -> list[float]:
        """Of torch.mm, and of the fastest."""
        speeds = []
        for way in self.ways:
            synchronise(self.a.device)
            start = _clock(self.a.device)
            way()
            synchronise(self.a.device)
            speeds.append(2 * self.n**3 / (_clock(self.a.device) - start))
        return [speeds[0], max(speeds)]


def _measured(name: str, size: str, rounds: int, device: str, product: MatrixProduct) -> dict[str, Any]:
    torch.manual_seed(0)
    model = encoder(f"encoder={name}", f"size={size}").to(device)
    n_frames = UTTERANCE_S * FRAMES_PER_S
    x, lens = batch(n_frames, N_MELS, device, same_length=True)
    step = TrainingStep(Hidden(model), x.requires_grad_(), lens, "float32")
    timed(step, 0)
    flops = 3 * 2 * macs(model, N_MELS, n_frames) * BATCH  # backward is twice the work of forward
    seconds, peaks = [], []
    end = time.monotonic() + ROW_S
    while len(seconds) < 3 or (len(seconds) < rounds and time.monotonic() < end):
        peaks.append(product.flops_per_s())
        seconds.append(timed(step, 0).step_s)
    return {
        "parameters": n_parameters(model),
        "flops": flops,
        "step_s": statistics.median(seconds),
        "peak_flops_per_s": statistics.median(mm for mm, _ in peaks),
        "best_flops_per_s": statistics.median(best for _, best in peaks),
        "utilisation": statistics.median(flops / s / mm for s, (mm, _) in zip(seconds, peaks, strict=True)),
        "utilisation_of_best": statistics.median(flops / s / best for s, (_, best) in zip(seconds, peaks, strict=True)),
        "wanted": LIMITS.get(name),
        "top": _top(step) if name in LIMITS else [],
    }


def _top(step: TrainingStep, n: int = 5) -> list[dict[str, Any]]:
    """The operations that take most of a step themselves."""
    on_gpu = step.x.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiled:
        timed(step, 0)
    own = {e.key: e.self_device_time_total if on_gpu else e.self_cpu_time_total for e in profiled.key_averages()}
    total = sum(own.values())
    best = sorted(own.items(), key=lambda pair: -pair[1])[:n]
    return [{"operation": key.removeprefix("aten::"), "share": value / total} for key, value in best]


def _clock(device: torch.device) -> float:
    return time.perf_counter() if device.type == "cuda" else time.process_time()
