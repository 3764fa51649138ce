"""Clipping of each layer's or each parameter's gradient by its own norm."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from asr_lab.clipping import EPS, each_norm, gradients, positive
from asr_lab.types import ClipReport


def clip_each(grads: list[Tensor], part: Tensor, n_parts: int, threshold: float) -> ClipReport:
    """g_k <- g_k * min(1, threshold / ||g_k||_2), where g_k are the gradients of part k; directions change.

    `part` (G,) int64, on the gradients' device, has the number of the part that each gradient belongs to, from 0.
    """
    if not grads:
        zero = torch.zeros(())
        return ClipReport(zero, zero, zero > 0)
    squares = each_norm(grads).square()
    of_part = squares.new_zeros(n_parts).index_add(0, part, squares).sqrt()
    scales = (threshold / (of_part + EPS)).clamp(max=1.0)
    torch._foreach_mul_(grads, list(scales[part].unbind()))  # pyright: ignore[reportPrivateImportUsage]
    before = squares.sum().sqrt()
    return ClipReport(before, (of_part * scales).square().sum().sqrt(), (scales < 1).any())


class PerParameterClipping:
    """`clip_each` with every weight and bias a part of its own."""

    def __init__(self, threshold: float):
        positive(threshold=threshold)
        self.threshold = threshold

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        grads = [g for g in gradients(parameters) if g.numel()]
        part = torch.arange(len(grads), device=grads[0].device if grads else None)
        return clip_each(grads, part, len(grads), self.threshold)


class PerLayerClipping:
    """`clip_each` with the parameters of one module (a linear layer's weight and bias, an LSTM's matrices) a part."""

    def __init__(self, threshold: float):
        positive(threshold=threshold)
        self.threshold = threshold
        self._layers: dict[int, str] = {}  # by id of the parameter
        self._parts: tuple[list[int], Tensor] = [], torch.zeros(0)

    def attach(self, module: nn.Module) -> None:
        self._layers = {id(p): name.rpartition(".")[0] for name, p in module.named_parameters()}

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        moving = [p for p in parameters if p.grad is not None and p.grad.numel()]
        numbers: dict[object, int] = {}
        part = [numbers.setdefault(self._layers.get(id(p), id(p)), len(numbers)) for p in moving]
        grads = gradients(moving)
        return clip_each(grads, self._on_device(part, grads), len(numbers), self.threshold)

    def _on_device(self, part: list[int], grads: list[Tensor]) -> Tensor:
        # Sent to the device once, not at every step: it would be waited for.
        if part != self._parts[0] or (grads and self._parts[1].device != grads[0].device):
            self._parts = part, torch.tensor(part, dtype=torch.long, device=grads[0].device if grads else None)
        return self._parts[1]
