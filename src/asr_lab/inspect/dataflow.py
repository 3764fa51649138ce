"""Which module's output reaches which module: read from the autograd graph, so that residual connections are seen."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asr_lab.cost import n_parameters
from asr_lab.errors import ConfigError
from asr_lab.inspect.trace import Call, watched

INPUT, OUTPUT = -1, -2  # ends of an edge: the block's own input and output
SIGNS = {"Add": "+", "Mul": "×", "Sub": "−", "Div": "÷", "Bmm": "matmul", "Mm": "matmul", "Cat": "concat"}
SIGNS |= {"MaskedFill": "mask", "NativeLayerNorm": "layer_norm", "Addmm": "linear", "ConstantPadNd": "pad"}
# Only another view of the same numbers.
SILENT = {"View", "UnsafeView", "Reshape", "ReshapeAlias", "Transpose", "Permute", "T", "Expand", "Clone", "Slice"}
SILENT |= {"Select", "Unsqueeze", "Squeeze", "ToCopy", "Alias", "AsStrided", "Split", "Unbind", "Unfold", "Unflatten"}
SILENT |= {"SplitWithSizes", "AccumulateGrad"}


@dataclass(eq=False)  # two calls of one module are two blocks
class Join:
    """Arithmetic between modules: operations in the order of the data."""

    operations: list[str]
    shape: tuple[int, ...]


class Edge(NamedTuple):
    source: int  # index among the block's items, or INPUT
    target: int  # or OUTPUT


@dataclass(eq=False)
class Block:
    """One call of a module, and what happens inside it."""

    path: str
    kind: str
    parameters: int
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    items: list["Block | Join"] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)

    def add(self, source: int, target: int) -> None:
        if (edge := Edge(source, target)) not in self.edges:
            self.edges.append(edge)


def dataflow(network: nn.Module, feats: Tensor, lens: Tensor) -> Block:
    """The network as nested blocks. What carries no gradient (lengths, masks) is left out."""
    roots: list[Block] = []
    stack: list[tuple[Block, dict[Any, int]]] = []  # a block, and which of its items made a node of autograd

    def enter(call: Call, arguments: dict[str, Any]) -> None:
        carried = _carried(arguments)
        shape = _first_shape(arguments)
        block = Block(call.path, type(call.module).__name__, n_parameters(call.module), input_shape=shape)
        if stack:
            parent, makers = stack[-1]
            sources = _sources(parent, makers, carried)
            parent.items.append(block)
            for source in sources or [len(parent.items) - 2]:
                parent.add(max(source, INPUT), len(parent.items) - 1)
        else:
            roots.append(block)
        stack.append((block, {x.grad_fn: INPUT for x in carried}))

    def leave(call: Call, output: Any) -> None:
        block, makers = stack.pop()
        carried = _carried(output)
        block.output_shape = _first_shape(output)
        if block.items:
            for source in _sources(block, makers, carried):
                block.add(source, OUTPUT)
        if stack:
            parent, makers = stack[-1]
            makers |= {x.grad_fn: parent.items.index(block) for x in carried}

    with watched(network, enter, leave), torch.enable_grad():
        network(feats.clone().requires_grad_() * 1, lens)
    return roots[0]


def _tensors(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, dict | list | tuple):
        for item in x.values() if isinstance(x, dict) else x:
            yield from _tensors(item)


def _carried(x: Any) -> list[Tensor]:
    """Tensors that have a history."""
    return [t for t in _tensors(x) if t.grad_fn is not None]


def _first_shape(x: Any) -> tuple[int, ...]:
    return next((tuple(t.shape) for t in _tensors(x)), ())


def _sources(block: Block, makers: dict[Any, int], tensors: Iterable[Tensor]) -> list[int]:
    """Where tensors come from: items of the block; arithmetic between modules becomes a new item, a join."""
    found: list[int] = []
    for x in tensors:
        if x.grad_fn not in makers:
            origins, operations = _history(x.grad_fn, makers)
            if not origins:
                continue
            if operations or len(origins) > 1:
                block.items.append(Join(operations, tuple(x.shape)))
                join = len(block.items) - 1
                for origin in origins:
                    block.add(origin, join)
                origins = [join]
            makers[x.grad_fn] = origins[0]
        found.append(makers[x.grad_fn])
    return list(dict.fromkeys(found))


def _history(node: Any, makers: dict[Any, int]) -> tuple[list[int], list[str]]:
    """(items that a node of autograd goes back to, the operations in between)"""
    seen, users, ends = [node], {}, []
    known = {node}
    for n in seen:  # grows while it is walked
        for before, _ in n.next_functions:
            if before is None:
                continue
            users.setdefault(before, []).append(n)
            if before in makers:
                ends.append(before)
            elif before not in known:
                known.add(before)
                seen.append(before)
    # Kept are operations on the way from an item; others work on weights.
    on_the_way, todo = set(), list(dict.fromkeys(ends))
    while todo:
        for user in users.get(todo.pop(), []):
            if user not in on_the_way:
                on_the_way.add(user)
                todo.append(user)
    names = [_name(n) for n in reversed(seen) if n in on_the_way]
    return sorted({makers[n] for n in ends}), list(dict.fromkeys(name for name in names if name))


def _name(node: Any) -> str:
    """AddBackward0 -> +"""
    name = node.name().partition("Backward")[0].removeprefix("torch::autograd::")
    return "" if name in SILENT else SIGNS.get(name) or name.lower()


def find_block(block: Block, path: str) -> Block:
    """The first call of a module.

    Raises:
        ConfigError: it is not called.
    """
    if found := _first(block, path):
        return found
    raise ConfigError(
        f"--module {path}: is not called itself, so there is nothing to draw; give a module in or above it"
    )


def _first(block: Block, path: str) -> Block | None:
    if block.path == path:
        return block
    return next((b for item in block.items if isinstance(item, Block) and (b := _first(item, path))), None)
