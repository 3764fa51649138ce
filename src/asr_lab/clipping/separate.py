"""Clipping of each layer's or each parameter's gradient by its own norm."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from asr_lab.clipping import EPS, gradients, positive
from asr_lab.types import ClipReport


def clip_each(grads: list[Tensor], part: list[int], threshold: float) -> ClipReport:
    """g_k <- g_k * min(1, threshold / ||g_k||_2), where g_k are the gradients of part k; directions change.

    `part` has the number of the part that each gradient belongs to, from 0.
    """
    filled = [i for i, g in enumerate(grads) if g.numel()]
    grads, part = [grads[i] for i in filled], [part[i] for i in filled]
    if not grads:
        zero = torch.zeros(())
        return ClipReport(zero, zero, zero > 0)
    squares = torch.stack([n.float() for n in torch._foreach_norm(grads)]).square()  # pyright: ignore[reportPrivateImportUsage]
    index = torch.tensor(part, device=squares.device)
    of_part = squares.new_zeros(max(part) + 1).index_add(0, index, squares).sqrt()
    scales = (threshold / (of_part + EPS)).clamp(max=1.0)
    torch._foreach_mul_(grads, list(scales[index].unbind()))  # pyright: ignore[reportPrivateImportUsage]
    before = squares.sum().sqrt()
    return ClipReport(before, (of_part * scales).square().sum().sqrt(), (scales < 1).any())


class PerParameterClipping:
    """`clip_each` with every weight and bias a part of its own."""

    def __init__(self, threshold: float):
        positive(threshold=threshold)
        self.threshold = threshold

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        grads = gradients(parameters)
        return clip_each(grads, list(range(len(grads))), self.threshold)


class PerLayerClipping:
    """`clip_each` with the parameters of one module (a linear layer's weight and bias, an LSTM's matrices) a part."""

    def __init__(self, threshold: float):
        positive(threshold=threshold)
        self.threshold = threshold
        self._layers: dict[int, str] = {}  # by id of the parameter

    def attach(self, module: nn.Module) -> None:
        self._layers = {id(p): name.rpartition(".")[0] for name, p in module.named_parameters()}

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        moving = [p for p in parameters if p.grad is not None]
        numbers: dict[object, int] = {}
        part = [numbers.setdefault(self._layers.get(id(p), id(p)), len(numbers)) for p in moving]
        return clip_each(gradients(moving), part, self.threshold)
