"""Every call of a module in one forward pass, in order: who called it, with what, and what came out."""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

CORNER = (3, 6)  # rows and columns of the values that are shown


class Values(NamedTuple):
    """A tensor in a few numbers; `None` where there are none (empty, or no numbers)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    mean: float | None  # over finite elements, as what follows; of a bool tensor the share that is true
    std: float | None  # of the population
    min: float | None
    max: float | None
    n_nonfinite: int
    corner: list[list[float]]  # first rows and columns of the last two axes, at the first index of all others


@dataclass
class Call:
    """One call of one module."""

    index: int  # in the order in which calls begin
    path: str
    module: nn.Module
    parent: int | None  # the call inside which this one happens
    inputs: list[Values] = field(default_factory=list)
    outputs: list[Values] = field(default_factory=list)
    macs: int = 0


Watch = Callable[[Call, Any], None]


@contextmanager
def watched(network: nn.Module, enter: Watch, leave: Watch) -> Iterator[list[Call]]:
    """`enter(call, {argument: value})` before and `leave(call, output)` after every call of a module in the block."""
    calls: list[Call] = []
    stack: list[Call] = []
    handles = []

    def before(path: str) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            call = Call(len(calls), path, module, stack[-1].index if stack else None)
            calls.append(call)
            stack.append(call)
            enter(call, _named(module, args, kwargs))

        return hook

    def after(module: nn.Module, args: tuple, output: Any) -> None:
        leave(stack.pop(), output)

    try:
        for path, module in network.named_modules():
            handles += [
                module.register_forward_pre_hook(before(path), with_kwargs=True),
                module.register_forward_hook(after),
            ]
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def traced(network: nn.Module, feats: Tensor, lens: Tensor) -> list[Call]:
    """Every call with numbers about its inputs and outputs, and its multiply-accumulates."""

    def enter(call: Call, arguments: dict[str, Any]) -> None:
        call.inputs = [v for name, x in arguments.items() for v in values(name, x)]

    def leave(call: Call, output: Any) -> None:
        call.outputs = list(values("output", output))

    with watched(network, enter, leave) as calls:
        network(feats, lens)
    spent = _macs(network, feats, lens)
    for call in calls:
        # An encoder may take another way on the meta device, and call fewer modules there.
        call.macs = spent[call.path].pop(0) if spent.get(call.path) else 0
    return calls


def _macs(network: nn.Module, feats: Tensor, lens: Tensor) -> dict[str, list[int]]:
    """Multiply-accumulates of a path's calls, counted as in cost.py: on the meta device, element-wise work left out."""
    on_meta = copy.deepcopy(network).to("meta")
    with FlopCounterMode(display=False) as counter:
        spent: dict[int, int] = {}

        def enter(call: Call, _: Any) -> None:
            spent[call.index] = -counter.get_total_flops()

        def leave(call: Call, _: Any) -> None:
            spent[call.index] += counter.get_total_flops()

        with watched(on_meta, enter, leave) as calls:
            on_meta(feats.to("meta"), lens.to("meta"))
    by_path: dict[str, list[int]] = {}
    for call in calls:
        by_path.setdefault(call.path, []).append(spent[call.index] // 2)
    return by_path


def values(name: str, x: Any) -> Iterator[Values]:
    """The tensors and numbers in an argument or a result: itself, or `name[0]`, `name[key]` of what holds them."""
    if isinstance(x, Tensor):
        yield _values(name, x)
    elif isinstance(x, dict):
        for key, item in x.items():
            yield from values(f"{name}[{key}]", item)
    elif isinstance(x, list | tuple):
        for i, item in enumerate(x):
            yield from values(f"{name}[{i}]" if len(x) > 1 else name, item)
    elif isinstance(x, int | float):
        yield Values(name, (), type(x).__name__, None, None, None, None, 0, [[float(x)]])


def _values(name: str, x: Tensor) -> Values:
    x = x.detach()
    shape, dtype = tuple(x.shape), str(x.dtype).removeprefix("torch.")
    if x.is_meta or x.is_complex() or not x.numel():
        return Values(name, shape, dtype, None, None, None, None, 0, [])
    wide = x.double()
    corner = wide
    while corner.dim() > 2:
        corner = corner[0]
    corner = torch.atleast_2d(corner)[: CORNER[0], : CORNER[1]]
    finite = wide[wide.isfinite()]
    n_nonfinite = wide.numel() - finite.numel()
    if not finite.numel():
        return Values(name, shape, dtype, None, None, None, None, n_nonfinite, corner.tolist())
    mean, std = finite.mean().item(), finite.std(correction=0).item()
    low, high = finite.min().item(), finite.max().item()
    return Values(name, shape, dtype, mean, std, low, high, n_nonfinite, corner.tolist())


def _named(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments under the names of `forward`'s parameters."""
    names = [p.name for p in inspect.signature(module.forward).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    names += [f"argument[{i}]" for i in range(len(names), len(args))]
    return dict(zip(names, args, strict=False)) | kwargs
