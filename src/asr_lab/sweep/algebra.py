"""The grid of an experiment as values: products, pairs, lists, conditions, repeats and samples of axes become cells.

A grid is a mapping. Its axes multiply in the order written, and words that are no axes say more:

    encoder: [rnn, bilstm]               an axis: a config group or a dotted key, with its values
    zip: {encoder: [...], optimizer.lr: [...]}        paired: the first of each, the second of each, ...
    when: [{if: {clipping: norm}, grid: {...}}]       axes of those cells that fulfil a condition
    any: [{...}, {...}]                  several grids, one after the other, each multiplied with the axes
    list: [{encoder: rnn, seed: 7}]      explicit cells beside all others
    include: [{...}], exclude: [{...}]   conditions: one of the first must hold, none of the second may
    repeat: 3                            seeds 1, 2, 3 of every cell
    sample: {n: 20, method: sobol, seed: 0, axes: {optimizer.lr: {log: [1e-4, 1e-2]}}}

A condition is a mapping, all of whose entries must hold: a value, a list of values, or a comparison such as "> 1".
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from asr_lab.errors import ConfigError, nearest
from asr_lab.sweep.conditions import holds
from asr_lab.sweep.sampling import sampled

Cell = dict[str, Any]  # axis -> value, in the order of the axes
WORDS = ("any", "exclude", "include", "list", "repeat", "sample", "when", "zip")
MOST = 10_000_000


def cells(grid: Mapping[str, Any]) -> list[Cell]:
    """All cells of a grid, each once, in the order of its axes.

    Raises:
        ConfigError: something is no grid, with the place in it; or no cell is left.
    """
    found = _grid(grid, "grid")
    if not found:
        raise ConfigError("grid: include and exclude leave no cell")
    return found


def _grid(grid: Any, where: str) -> list[Cell]:
    if not isinstance(grid, Mapping):
        raise ConfigError(f"{where}: axes and their values are wanted, {grid!r} came")
    for word in grid:
        if not isinstance(word, str):
            raise ConfigError(f"{where}: the name of an axis is wanted, {word!r} came")
    parts = [_part(name, value, f"{where}.{name}") for name, value in grid.items() if name not in _LATER]
    size = 1
    for part in parts:
        size *= len(part)
    if size > MOST:
        raise ConfigError(f"{where}: {size:,} cells; {MOST:,} at the most")
    found = [_joined(combination, where) for combination in itertools.product(*parts)] if parts else []
    for name, step in _LATER.items():
        if name in grid:
            found = step(found, grid[name], f"{where}.{name}")
    return _once(found)


def _part(name: str, value: Any, where: str) -> list[Cell]:
    """What is multiplied with the rest"""
    if name == "zip":
        return _zip(value, where)
    if name == "any":
        return [cell for i, grid in enumerate(_list(value, where)) for cell in _grid(grid, f"{where}[{i}]")]
    if name == "sample":
        return sampled(value, where)
    return [{name: v} for v in axis(value, where)]


def axis(values: Any, where: str) -> list[Any]:
    """The values of an axis; one alone is a list of one."""
    if isinstance(values, Mapping):
        raise ConfigError(f"{where}: values are wanted, a mapping came{nearest(where.rpartition('.')[2], WORDS)}")
    values = list(values) if isinstance(values, list | tuple) else [values]
    if not values:
        raise ConfigError(f"{where}: a list of values is wanted, an empty one came")
    return values


def _zip(value: Any, where: str) -> list[Cell]:
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"{where}: axes of equal length are wanted, {value!r} came")
    columns = {name: axis(values, f"{where}.{name}") for name, values in value.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise ConfigError(f"{where}: paired axes have equally many values; {said}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _when(found: list[Cell], branches: Any, where: str) -> list[Cell]:
    for i, branch in enumerate(_list(branches, where)):
        here = f"{where}[{i}]"
        if not isinstance(branch, Mapping) or set(branch) != {"if", "grid"}:
            raise ConfigError(f"{here}: 'if' and 'grid' are wanted, {branch!r} came")
        more = _grid(branch["grid"], f"{here}.grid")
        found = list(_widened(found, branch["if"], more, here))
    return found


def _widened(found: list[Cell], condition: Any, more: list[Cell], where: str) -> Iterator[Cell]:
    for cell in found:
        if holds(condition, cell, f"{where}.if"):
            for cell_of_branch in more:
                yield _joined((cell, cell_of_branch), where)
        else:
            yield cell


def _listed(found: list[Cell], explicit: Any, where: str) -> list[Cell]:
    explicit = _list(explicit, where)
    for i, cell in enumerate(explicit):
        if not isinstance(cell, Mapping) or any(isinstance(v, list | Mapping) for v in cell.values()):
            raise ConfigError(f"{where}[{i}]: one value for each axis is wanted, {cell!r} came")
    return [*found, *map(dict, explicit)]


def _kept(wanted: bool) -> Callable[[list[Cell], Any, str], list[Cell]]:
    def step(found: list[Cell], conditions: Any, where: str) -> list[Cell]:
        conditions = _list(conditions, where)
        places = [f"{where}[{i}]" for i in range(len(conditions))]

        def fits(cell: Cell) -> bool:
            return any(holds(c, cell, place) for c, place in zip(conditions, places, strict=True))

        return [cell for cell in found if fits(cell) == wanted]

    return step


def _repeated(found: list[Cell], n: Any, where: str) -> list[Cell]:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ConfigError(f"{where}: a number of seeds is wanted, {n!r} came")
    if any("seed" in cell for cell in found):
        raise ConfigError(f"{where}: seed is an axis already; keep one of both")
    return [{**cell, "seed": seed} for cell in found or [{}] for seed in range(1, n + 1)]


# In this order, after the product.
_LATER: dict[str, Callable[[list[Cell], Any, str], list[Cell]]] = {
    "when": _when,
    "list": _listed,
    "include": _kept(True),
    "exclude": _kept(False),
    "repeat": _repeated,
}


def _joined(parts: tuple[Cell, ...], where: str) -> Cell:
    joined: Cell = {}
    for part in parts:
        for name, value in part.items():
            if name in joined:
                raise ConfigError(f"{where}: {name} is an axis twice")
            joined[name] = value
    return joined


def _once(found: list[Cell]) -> list[Cell]:
    return list({repr(sorted(cell.items(), key=lambda item: item[0])): cell for cell in found}.values())


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f"{where}: a list is wanted, {value!r} came")
    return list(value)
