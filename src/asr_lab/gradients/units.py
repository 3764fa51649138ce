"""Statistics of a model's units in one step: how far each went, what gradient came, how long it sat at its end.

A unit is a channel of what an activation function gives (ReLU, SiLU, tanh, sigmoid, ..., called as a module or not), or
of a recurrent cell's output or gates.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from asr_lab.layers.recurrence import FusedCell, Gru, Lstm, Recurrence


def _every_way(*names: str) -> dict[Any, str]:
    """All callables under which torch has these functions -> their names"""
    ways: dict[Any, str] = {}
    for name in names:
        for place in (torch, functional, Tensor):
            for spelt in (name, f"{name}_"):
                if hasattr(place, spelt):
                    ways[getattr(place, spelt)] = name
    return ways


# Zero, and flat, over a wide range of their input.
RECTIFIED = _every_way("relu", "relu6", "silu", "gelu", "elu", "mish", "hardswish")
# Their ends: -1 and 1, or 0 and 1.
AROUND_ZERO = _every_way("tanh", "hardtanh")
OPEN_OR_SHUT = _every_way("sigmoid", "hardsigmoid")
ACTIVATIONS = RECTIFIED | AROUND_ZERO | OPEN_OR_SHUT
# They make units: how many there are is what tells the units of an activation from its frames.
CHANNELS_FIRST = _every_way("conv1d", "conv2d")
CHANNELS_LAST = _every_way("linear")
# In the order in which the cells have them.
GATES = {Lstm: ("input gate", "forget gate", "candidate", "output gate"), Gru: ("reset gate", "update gate")}


class Units(NamedTuple):
    """Of one layer in one step; (D,) each."""

    peaks: np.ndarray  # largest magnitude over all frames; NaN of gates
    grads: np.ndarray  # the same of the loss's gradient; NaN of gates
    saturated: np.ndarray  # share of frames at an end of the range; 0 where there is none


class UnitWatch:
    """Watches the units of `module` between `attach` and `detach`; numbers stay on the device until `read`.

    What runs without a gradient, such as a teacher, is not watched. Padding counts as frames but in a `Recurrence`.
    """

    def __init__(self, module: nn.Module, saturated_at: float):
        self.module, self.saturated_at = module, saturated_at
        self._handles: list[RemovableHandle] = []
        self._mode: _Calls | None = None
        self._stats: dict[str, dict[str, Tensor]] = {}
        self._inside: list[tuple[str, bool]] = []  # names of the modules that run, and whether one is a recurrent cell

    def attach(self) -> None:
        self.detach()
        self._stats, self._inside = {}, []
        for name, part in self.module.named_modules():
            is_cell = isinstance(part, Recurrence | nn.RNNBase)

            def enter(module: nn.Module, args: Any, name: str = name, is_cell: bool = is_cell) -> None:
                self._inside.append((name, is_cell or (bool(self._inside) and self._inside[-1][1])))

            def leave(module: nn.Module, args: Any, out: Any) -> None:
                name, _ = self._inside.pop()
                if isinstance(module, Recurrence | nn.RNNBase) and not (self._inside and self._inside[-1][1]):
                    self._add_cell(name, module, args, out[0])

            self._handles.append(part.register_forward_pre_hook(enter))
            self._handles.append(part.register_forward_hook(leave))
        self._mode = _Calls(self._add_activation)
        self._mode.__enter__()

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._mode is not None:
            mode, self._mode = self._mode, None
            mode.__exit__(None, None, None)

    def read(self) -> dict[str, Units]:
        """Of each layer that ran, by its name; asks the device once."""
        rows = []
        for stats in self._stats.values():
            nothing = torch.full_like(stats["peak"], math.nan)
            rows.append(torch.stack([stats["peak"], stats.get("grad", nothing), stats["stuck"] / stats["frames"]]))
        names, self._stats = list(self._stats), {}
        if not rows:
            return {}
        whole = torch.cat(rows, dim=1).cpu().numpy()
        parts = np.split(whole, np.cumsum([row.shape[1] for row in rows])[:-1], axis=1)
        return {name: Units(*part) for name, part in zip(names, parts, strict=True)}

    def _add_activation(self, called: Any, out: Tensor, width: int) -> None:
        if self._inside and self._inside[-1][1]:  # a cell's own
            return
        y, stuck = out.detach(), None
        if called in AROUND_ZERO:
            stuck = y.abs() > self.saturated_at
        elif called in OPEN_OR_SHUT:
            stuck = (y - 0.5).abs() > self.saturated_at - 0.5
        name = f"{self._inside[-1][0] if self._inside else 'model'} ({ACTIVATIONS[called]})"
        first = out.dim() > 2 and out.shape[1] == width and (out.dim() == 4 or out.shape[-1] != width)
        self._add(name, out, stuck, dim=1 if first else out.dim() - 1)

    def _add_cell(self, name: str, cell: nn.Module, args: Any, hidden: Tensor) -> None:
        mask = args[1] if isinstance(cell, Recurrence) else None
        kernel = getattr(cell, "kernel", cell)
        if isinstance(kernel, nn.LSTM | nn.GRU) or getattr(kernel, "nonlinearity", "") == "tanh":
            stuck = hidden.detach().abs() > self.saturated_at
        else:
            stuck = None
        self._add(name, hidden, stuck, 2, mask)
        if isinstance(cell, FusedCell) and type(cell) in GATES:
            self._add_gates(name, cell, args, hidden)

    @torch.no_grad()
    def _add_gates(self, name: str, cell: FusedCell, args: Any, hidden: Tensor) -> None:
        """The kernels keep their gates to themselves: they follow from input and outputs."""
        x, mask = args[0], args[1]
        state = args[2] if len(args) > 2 and args[2] is not None else None
        first = hidden.new_zeros(hidden.shape[0], hidden.shape[2]) if state is None else state[0].to(hidden.dtype)
        before = torch.cat([first[:, None], hidden[:, :-1]], dim=1)
        halves = cell.project(x, mask).chunk(cell.n_gates, -1), cell.recur(before).chunk(cell.n_gates, -1)
        # Where sigmoid and tanh come to an end, said of what goes into them.
        at = self.saturated_at
        for gate, a, b in zip(GATES[type(cell)], *halves, strict=False):  # a GRU's candidate is no such sum
            value = a + b
            stuck = value.abs() > (math.atanh(at) if gate == "candidate" else math.log(at / (1 - at)))
            # Before the sigmoid nothing is dead: only where they are stuck is asked.
            self._add(f"{name} ({gate})", value * math.nan, stuck, 2, mask)

    def _add(self, name: str, out: Tensor, stuck: Tensor | None, dim: int, mask: Tensor | None = None) -> None:
        """`out` and `stuck` with units in dimension `dim`; `mask` (B,U) bool: frames that count"""
        over = tuple(d for d in range(out.dim()) if d != dim)
        with torch.no_grad():
            y = out.detach() if mask is None else out.detach() * mask[..., None]
            n_frames = torch.tensor(float(y.numel() // y.shape[dim]), device=y.device) if mask is None else mask.sum()
            found = {"peak": y.abs().amax(over).float(), "frames": n_frames.float()}
            found["stuck"] = torch.zeros_like(found["peak"])
            if stuck is not None:
                found["stuck"] = (stuck if mask is None else stuck & mask[..., None]).sum(over).float()
        stats = self._stats.get(name)
        if stats is None or stats["peak"].shape != found["peak"].shape:
            self._stats[name] = stats = found
        else:  # a module may run more than once in a step
            stats["peak"] = torch.maximum(stats["peak"], found["peak"])
            stats["stuck"], stats["frames"] = stats["stuck"] + found["stuck"], stats["frames"] + found["frames"]
        if out.requires_grad:

            def graded(grad: Tensor) -> None:
                peak = grad.detach().abs().amax(over).float()
                stats["grad"] = torch.maximum(stats["grad"], peak) if "grad" in stats else peak

            out.register_hook(graded)


class _Calls(TorchFunctionMode):
    """Says of each activation function that is called what it gave, and how many units the last weights made."""

    def __init__(self, tell: Any):
        super().__init__()
        self._tell, self._width = tell, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in CHANNELS_FIRST:
            self._width = out.shape[1]
        elif func in CHANNELS_LAST:
            self._width = out.shape[-1]
        elif func in ACTIVATIONS and out.requires_grad and out.numel() and out.dim():
            self._tell(func, out, self._width)
        return out
