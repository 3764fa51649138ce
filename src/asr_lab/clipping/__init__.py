"""Gradient clipping, a first-class choice: called with all parameters of a step, each choice reports what it did.

The contract: `clipper(parameters) -> ClipReport`, gradients changed in place. Each file has the choice as a function of
gradients, with formula and source, and a thin class that a YAML names. What a choice may have beside `__call__`:

- `attach(module)`: called once before training, with the module whose parameters come; for names and layers.
- `state_dict()`, `load_state_dict(state)`: what it remembers of earlier steps; checkpointed, restored exactly.

Nothing here asks a GPU for a number (but sparse gradients, whose rows must be counted): scales, thresholds and what is
remembered stay tensors on the gradients' device. A non-finite norm leaves no trace in what is remembered; the training
task, which reads it from `norm_before`, leaves such a step out.
"""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from asr_lab.types import ClipReport

# Added to a norm that divides: torch.nn.utils.clip_grad_norm_'s, so that both give the same numbers.
EPS = 1e-6
# Elements; below them it is cheaper to copy a tensor beside others than to call a function for it.
SMALL = 4096


class Clipper(Protocol):
    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport: ...


def gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The gradients that exist, in order; of a sparse one its values, which it shares (each row once, from here on)."""
    found = []
    for p in parameters:
        if p.grad is None:
            continue
        if p.grad.is_sparse:
            p.grad = p.grad.coalesce()
            found.append(p.grad._values())
        else:
            found.append(p.grad)
    return found


def global_norm(grads: list[Tensor], p: float = 2.0) -> Tensor:
    """() p-norm over all gradients together, in float32; 0 when there are none."""
    grads = [g for g in grads if g.numel()]
    if not grads:
        return torch.zeros(())
    if p == float("inf"):
        return _largest(grads)
    return torch.linalg.vector_norm(each_norm(grads, p), p)


def each_norm(tensors: list[Tensor], p: float = 2.0) -> Tensor:
    """(N,) p-norm of each, in float32"""
    half = any(x.dtype in (torch.float16, torch.bfloat16) for x in tensors)
    norms = torch._foreach_norm(tensors, p, dtype=torch.float32 if half else None)  # pyright: ignore
    return torch.stack(norms).float() if tensors else torch.zeros(0)


def _largest(grads: list[Tensor]) -> Tensor:
    """() largest magnitude, NaN if one is"""
    if grads[0].device.type != "cpu":
        return each_norm(grads, float("inf")).amax()
    # On a CPU least and largest together are found ten times faster than that norm, small tensors all at once.
    row = in_a_row(g for g in grads if g.numel() < SMALL)
    large = [g for g in grads if g.numel() >= SMALL]
    return torch.stack([x.float() for g in (row, *large) if g.numel() for x in torch.aminmax(g)]).abs().amax()


def in_a_row(tensors: Iterable[Tensor]) -> Tensor:
    """(N,) float32 copy of all elements: a few large operations instead of small ones for each weight."""
    flat = [x.flatten() for x in tensors]
    return torch.cat(flat).float() if flat else torch.zeros(0)


def scale_to(grads: list[Tensor], norm: Tensor, threshold: Tensor | float) -> Tensor:
    """g <- g * min(1, threshold / norm) for all gradients; the factor, ()"""
    # No branch on the norm: on a GPU that would wait for the device at every step.
    scale = (threshold / (norm + EPS)).clamp(max=1.0)
    multiply(grads, scale)
    return scale


def multiply(grads: list[Tensor], scale: Tensor) -> None:
    if grads:
        torch._foreach_mul_(grads, scale.to(grads[0].device))  # pyright: ignore[reportPrivateImportUsage]


def positive(**values: float) -> None:
    """
    Raises:
        ValueError: one is not positive.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"clipping.{name} must be positive, {value} came; clipping=none switches it off")


__all__ = [
    "Clipper",
    "each_norm",
    "global_norm",
    "gradients",
    "in_a_row",
    "multiply",
    "positive",
    "scale_to",
]
