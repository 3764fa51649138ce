"""Time and memory of a training step over the length of the utterances, at a constant amount of speech in a batch."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch import nn

from asr_lab.environment import peak_memory_mb
from asr_lab.process import keep_freed_memory
from encoder_speed.built import FRAMES_PER_S, N_MELS, Hidden, choices, encoder
from encoder_speed.stepping import TrainingStep, batch, timed
from encoder_speed.utilisation import ignores_size

LENGTHS_S = (2, 5, 10, 20, 30, 60)
BATCH_S = 60  # 30 utterances of 2 s, ..., one of 60 s
SIZE = "small"
TURN_S = 1.0
START = "forkserver"
MOST_S = 120.0  # a child that takes longer is given up


def measure(device: str, console: Console) -> list[dict[str, Any]]:
    """One row for each choice that has sizes and each length."""
    rows = []
    for name in choices():
        if ignores_size(name):
            continue
        console.print(f"  length scaling of {name}")
        for seconds in LENGTHS_S:
            found = in_child(step_cost, name, seconds, device)
            rows.append({"encoder": name, "kind": kind(name), "seconds": seconds, **found})
    return rows


def kind(name: str) -> str:
    """The panel of the picture that an encoder belongs to."""
    with torch.device("meta"):
        model = encoder(f"encoder={name}", f"size={SIZE}")
    if any(isinstance(m, nn.RNNBase) for m in model.modules()) or "recurrent" in type(model).__module__:
        return "recurrent"
    if model.memory_growth == "quadratic":
        return "self-attention"
    return "convolution, state space"


def step_cost(name: str, seconds: float, device: str) -> dict[str, Any]:
    """A step's time, and the memory that it takes on top of the weights, their gradients and the libraries."""
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Hidden(encoder(f"encoder={name}", f"size={SIZE}").to(device))
    n_frames, n = round(seconds * FRAMES_PER_S), round(BATCH_S / seconds)
    timed(
        TrainingStep(model, *batch(FRAMES_PER_S // 2, N_MELS, device, n=1), "float32"), 0
    )  # loads what is loaded late
    x, lens = batch(n_frames, N_MELS, device, n, same_length=True)
    before = peak_memory_mb(reset=True)
    step = TrainingStep(model, x, lens, "float32")
    timed(step, 0)
    timing = timed(step, TURN_S)
    return {"batch": n, **timing._asdict(), "memory_mib": max(peak_memory_mb() - before, 0.0)}


def in_child(function: Callable[..., dict[str, Any]], *values: Any) -> dict[str, Any]:
    """What a function gives in a fresh process, which has the libraries loaded and nothing else; {} if it fails."""
    context = multiprocessing.get_context(START)
    context.set_forkserver_preload(["torch", "asr_lab.build", "torch.utils.flop_counter"])
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(theirs, function, values))
    child.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(MOST_S) else {}
    except EOFError:  # killed, for its memory most likely
        return {}
    finally:
        child.kill()
        child.join()


def _send(end: Any, function: Callable[..., dict[str, Any]], values: tuple[Any, ...]) -> None:
    end.send(function(*values))
