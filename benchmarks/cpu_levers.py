"""What the CPU choices of this code are worth: each against the plain PyTorch way, interleaved, medians, as ratios.

    python benchmarks/cpu_levers.py [--rounds 15]

Prints a table and, with --json FILE, writes the numbers. One thread; times are CPU seconds of this process, so that
other work on the machine counts little.
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr_lab.layers.dropout import Dropout
from asr_lab.process import keep_freed_memory
from encoder_speed.built import encoder

BATCH, FRAMES, WIDTH = 9, 270, 80  # 24 s of speech


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--json")
    arguments.add_argument("--malloc", choices=["kept", "returned"], help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.malloc:
        print(conformer_step_seconds(options.malloc == "kept", options.rounds))
        return
    keep_freed_memory()
    rows = [
        (
            "bidirectional LSTM layer: packed / reversed within lengths",
            *compare(packed_lstm(), own_lstm(), options.rounds),
        ),
        (
            "dropout: PyTorch / one byte an element",
            *compare(dropout(nn.Dropout(0.1)), dropout(Dropout(0.1)), options.rounds),
        ),
        ("depthwise 2-D convolution: bfloat16 / float32", *compare(depthwise(True), depthwise(False), options.rounds)),
        ("Conformer step: float32 / bfloat16 autocast", *compare(conformer(False), conformer(True), options.rounds)),
        ("Conformer step: freed memory returned / kept", *malloc(options.rounds)),
        ("importing Lightning: as it comes / leanly", *importing()),
    ]
    for name, plain, ours in rows:
        print(f"{name:62} {1e3 * plain:8.2f} ms {1e3 * ours:8.2f} ms   {plain / ours:5.2f}x")
    if options.json:
        with open(options.json, "w") as f:
            json.dump([{"what": n, "plain_s": a, "ours_s": b, "ratio": a / b} for n, a, b in rows], f, indent=1)


def compare(plain: Callable[[], None], ours: Callable[[], None], rounds: int) -> tuple[float, float]:
    """Median CPU seconds of two functions called in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for r in range(rounds + 3):
        for function, seconds in zip((plain, ours), times, strict=True):
            start = time.process_time()
            function()
            if r >= 3:  # the first calls choose kernels and fill caches
                seconds.append(time.process_time() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def lengths() -> torch.Tensor:
    return torch.full((BATCH,), FRAMES // 3) - torch.arange(BATCH)


def packed_lstm() -> Callable[[], None]:
    x, lens = torch.randn(BATCH, FRAMES // 3, 240), lengths()
    lstm = nn.LSTM(240, 224, batch_first=True, bidirectional=True)

    def step() -> None:
        packed = pack_padded_sequence(x, lens, batch_first=True, enforce_sorted=False)
        pad_packed_sequence(lstm(packed)[0], batch_first=True)[0].sum().backward()

    return step


def own_lstm() -> Callable[[], None]:
    x, lens = torch.randn(BATCH, FRAMES // 3, 240), lengths()
    values = ("encoder.d_hidden=224", "encoder.n_layers=1", "encoder.dropout=0.0")
    layer = encoder("encoder=bilstm", "encoder/subsampling=none", *values, in_dim=240)
    return lambda: layer(x, lens)[0].sum().backward()


def dropout(layer: nn.Module) -> Callable[[], None]:
    x = torch.randn(BATCH, 68, 576, requires_grad=True)
    return lambda: layer(x).sum().backward()


def depthwise(low: bool) -> Callable[[], None]:
    convolution = nn.Conv2d(64, 64, 3, 2, 1, groups=64)
    x = torch.randn(BATCH, 64, 135, 40, requires_grad=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            y = convolution(x)
        y.float().sum().backward()

    return step


def conformer(low: bool) -> Callable[[], None]:
    model = encoder("encoder=conformer", "size=small", in_dim=WIDTH)
    feats, lens = torch.randn(BATCH, FRAMES, WIDTH), torch.full((BATCH,), FRAMES)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            hidden, _ = model(feats, lens)
        hidden.float().square().sum().backward()

    return step


def malloc(rounds: int) -> tuple[float, float]:
    """The allocator is set once for a process: each way in processes of its own, in turn."""
    seconds: dict[str, list[float]] = {"returned": [], "kept": []}
    for _ in range(3):
        for way, values in seconds.items():
            command = [sys.executable, __file__, "--malloc", way, "--rounds", str(rounds)]
            values.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return statistics.median(seconds["returned"]), statistics.median(seconds["kept"])


def conformer_step_seconds(kept: bool, rounds: int) -> float:
    if kept:
        keep_freed_memory()
    else:
        ctypes.CDLL(None)  # nothing set: the C library as it comes
    step = conformer(True)
    return compare(step, step, rounds)[0]


def importing() -> tuple[float, float]:
    """CPU seconds of fresh processes, in turn."""
    seconds: dict[str, list[float]] = {"": [], "from asr_lab.lean_imports import import_leanly; import_leanly(); ": []}
    for _ in range(7):
        for before, values in seconds.items():
            code = f"{before}import pytorch_lightning, time; print(time.process_time())"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            values.append(float(done.stdout))
    plain, ours = map(statistics.median, seconds.values())
    return plain, ours


if __name__ == "__main__":
    main()
