"""A close look at one step of a training, kept on the device until somebody fetches it."""

import torch
from torch import Tensor, nn

from asr_lab.gradients.sample import Sample, draw


class Looker:
    """The close look at one step: norms of every parameter, sampled elements and units, as one vector on the device."""

    def __init__(self, parameters: dict[str, nn.Parameter], n_elements: int, n_units: int):
        self.parameters = [p for p in parameters.values() if p.numel()]
        shapes = {name: tuple(p.shape) for name, p in parameters.items() if p.numel()}
        self.sample: Sample
        self.sample, elements, units = draw(shapes, n_elements, n_units)
        self._elements = {i: torch.from_numpy(places) for i, places in elements.items()}
        self._units = {i: torch.from_numpy(places) for i, places in units.items()}
        self._before: list[Tensor] = []
        self._seen: list[Tensor] = []

    def to(self, device: torch.device) -> None:
        """Now, so that no step waits for a copy."""
        self._elements = {i: places.to(device) for i, places in self._elements.items()}
        self._units = {i: places.to(device) for i, places in self._units.items()}

    @torch.no_grad()
    def before(self) -> None:
        """Once a step, before anything moves the weights."""
        if not self._before:
            self._before = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def gradients(self) -> None:
        """After backward and unscaling, before clipping."""
        if not self._before:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        grads = [g.to_dense() if g.is_sparse else g for g in grads]
        norms = _norms(grads), _norms(grads, torch.inf), _norms(self._before)
        elements = [grads[i].flatten()[places] for i, places in self._elements.items()]
        units = [_of_rows(grads[i], rows) for i, rows in self._units.items()]
        weights = [_of_rows(self._before[i], rows) for i, rows in self._units.items()]
        self._seen = [*norms, _joined(elements, norms[0]), _joined(units, norms[0]), _joined(weights, norms[0])]

    @torch.no_grad()
    def after(self) -> Tensor | None:
        """A row in the order of `LOOK`, after the step; None if there was none, or nobody looks at it."""
        if not self._seen:
            return None
        moved = torch._foreach_sub([p.detach() for p in self.parameters], self._before)  # pyright: ignore
        norms, peaks, weights, *rest = self._seen
        self._before, self._seen = [], []
        return torch.cat([norms, peaks, weights, _norms(list(moved)), *rest])


def _norms(tensors: list[Tensor], order: float = 2) -> Tensor:
    """(P,) in float32"""
    return torch.stack(torch._foreach_norm(tensors, order, dtype=torch.float32))  # pyright: ignore


def _of_rows(x: Tensor, rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x[rows].flatten(1), dim=1, dtype=torch.float32)


def _joined(parts: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat([part.float() for part in parts]) if parts else like.new_zeros(0)
