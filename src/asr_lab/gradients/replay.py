"""One step taken again, closely watched and without a trace: where its first number that is not finite comes from."""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Micro(NamedTuple):
    """One batch of a step (several when gradients are accumulated), and what PyTorch was seeded with before it."""

    batch: Any
    seed: int


class Replay(NamedTuple):
    """What a replay met first; None where all was finite."""

    loss: float | None = None  # of the batch in which it ended
    module: str | None = None  # whose output was not finite
    ids: tuple[str, ...] = ()  # the utterances in it that were not; none when all were
    loss_only: bool = False  # no module's output was, but the loss was not finite
    function: str | None = None  # of the backward pass, the first to give what is not finite
    line: str | None = None  # of the forward pass, that made that function
    gradient_of: str | None = None  # module for whose output the gradient was not finite
    parameters: tuple[str, ...] = ()  # whose gradients were not
    error: str | None = None  # that ended the replay

    @property
    def finite(self) -> bool:
        return not (self.module or self.loss_only or self.function or self.gradient_of or self.parameters or self.error)


def replay(
    task: Any,
    micros: Sequence[Micro],
    context: Callable[[], AbstractContextManager],
    scale: float = 1.0,
    float32: bool = False,
) -> Replay:
    """Forward and backward of a step under `context`, its loss times `scale`, with anomaly mode.

    Weights, buffers, gradients, random numbers and what is logged are afterwards as they were. With `float32` weights
    of fewer bits are widened meanwhile.
    """
    found = Replay()
    with _untouched(task, float32), torch.enable_grad():
        for micro in micros:
            torch.manual_seed(micro.seed)
            found = _one(task, micro.batch, context, scale)
            if not found.finite:
                break
    return found


def _one(task: Any, batch: Any, context: Callable[[], AbstractContextManager], scale: float) -> Replay:
    bad: dict[str, Any] = {}
    handles = [part.register_forward_hook(_noting(name, batch, bad)) for name, part in task.named_modules() if name]
    try:
        # For the lines of the forward pass alone: its own look is for NaN only, and infinity comes first.
        with torch.autograd.set_detect_anomaly(True, check_nan=False), context():
            loss = task.step(batch, "train")
        if not loss.isfinite():
            return Replay(loss.item(), bad.get("module"), bad.get("ids", ()), loss_only="module" not in bad)
        _note_functions(loss, bad)
        named = [(n, p) for n, p in task.named_parameters() if p.requires_grad]
        # Not `backward`: gradients that are there stay what they are, and other processes hear nothing.
        grads = torch.autograd.grad(loss * scale, [p for _, p in named], allow_unused=True)
        names = tuple(n for (n, _), g in zip(named, grads, strict=True) if g is not None and not g.isfinite().all())
        if not names:
            return Replay(loss.item())
        function, line, near = (bad.get(key) for key in ("function", "line", "gradient_of"))
        return Replay(loss.item(), function=function, line=line, gradient_of=near, parameters=names)
    except Exception as error:  # whatever a broken model raises is what is to be told
        return Replay(module=bad.get("module"), ids=bad.get("ids", ()), error=f"{type(error).__name__}: {error}")
    finally:
        for handle in handles:
            handle.remove()


def _note_functions(loss: Tensor, bad: dict[str, Any]) -> None:
    """Has the first function of the backward pass that gives what is not finite remembered."""

    def hook(name: str, lines: list[str], given: Any, came: Any) -> None:
        if "function" not in bad and not all(g is None or g.isfinite().all() for g in given):
            bad["function"], bad["line"] = name, _line("".join(lines))

    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            node.register_hook(partial(hook, node.name(), node.metadata.get("traceback_", [])))  # pyright: ignore
            waiting += [before for before, _ in node.next_functions]


def _noting(name: str, batch: Any, bad: dict[str, Any]) -> Callable[..., None]:
    """A hook that remembers the first module whose output, and the first whose output's gradient, is not finite."""

    def hook(module: nn.Module, args: Any, out: Any) -> None:
        for y in tensors(out):
            if "module" not in bad and not y.isfinite().all():
                bad["module"] = name
                rows = ~y.detach().flatten(1).isfinite().all(1) if y.dim() > 1 else torch.zeros(0)
                if len(rows) == len(batch.ids) and not rows.all():
                    bad["ids"] = tuple(i for i, row in zip(batch.ids, rows.tolist(), strict=True) if row)
            if y.requires_grad:
                y.register_hook(graded)

    def graded(grad: Tensor) -> None:
        if "gradient_of" not in bad and not grad.isfinite().all():
            bad["gradient_of"] = name

    return hook


def tensors(out: Any) -> Iterator[Tensor]:
    """All tensors of floating point in tuples, lists and dictionaries"""
    if isinstance(out, Tensor):
        if out.is_floating_point():
            yield out
    elif isinstance(out, tuple | list):
        for part in out:
            yield from tensors(part)
    elif isinstance(out, dict):
        yield from tensors(list(out.values()))


def _line(traceback: str) -> str | None:
    """`file:line in function` of the last frame that is not torch's own"""
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', traceback)
    ours = [f for f in frames if "/torch/" not in f[0] and "/pytorch_lightning/" not in f[0]]
    return f"{ours[-1][0]}:{ours[-1][1]} in {ours[-1][2]}" if ours else None


@contextmanager
def _untouched(task: Any, float32: bool) -> Iterator[None]:
    """Whatever a step changes is put back."""
    buffers = [
        (part, name, buffer, buffer.clone())
        for part in task.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    narrow = [(p, p.data) for p in task.parameters() if p.is_floating_point() and p.dtype != torch.float32 and float32]
    mute = {name: task.__dict__.get(name) for name in ("log", "log_dict")}
    numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    device = next(task.parameters()).device
    try:
        for p, data in narrow:
            p.data = data.float()
        for name in mute:
            task.__dict__[name] = lambda *args, **kwargs: None
        with torch.random.fork_rng([device.index] if device.type == "cuda" else []):
            yield
    finally:
        for name, own in mute.items():
            task.__dict__.pop(name, None)
            if own is not None:
                task.__dict__[name] = own
        for p, data in narrow:
            p.data = data
        for part, name, buffer, content in buffers:
            part._buffers[name] = buffer
            buffer.data.copy_(content)
        random.setstate(numbers[0])
        np.random.set_state(numbers[1])  # noqa: NPY002
