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
SAME = "the same as another cell"  # a reason to be left out
_LeftOut = list[tuple[Cell, str]]


def cells(grid: Mapping[str, Any], left_out: _LeftOut | None = None) -> list[Cell]:
    """All cells of a grid, each once, in the order of its axes.

    `left_out` is given the cells that conditions leave out, each with the reason.

    Raises:
        ConfigError: something is no grid, with the place in it; or no cell is left.
    """
    found = _grid(grid, "grid", [] if left_out is None else left_out)
    if not found:
        raise ConfigError("grid: include and exclude leave no cell")
    return found


def _grid(grid: Any, where: str, left_out: _LeftOut) -> list[Cell]:
    if not isinstance(grid, Mapping):
        raise ConfigError(f"{where}: axes and their values are wanted, {grid!r} came")
    for word in grid:
        if not isinstance(word, str):
            raise ConfigError(f"{where}: the name of an axis is wanted, {word!r} came")
    parts = [_part(name, value, f"{where}.{name}", left_out) for name, value in grid.items() if name not in _LATER]
    size = 1
    for part in parts:
        size *= len(part)
    if size > MOST:
        raise ConfigError(f"{where}: {size:,} cells; {MOST:,} at the most")
    found = [_joined(combination, where) for combination in itertools.product(*parts)] if parts else []
    for name, step in _LATER.items():
        if name in grid:
            found = step(found, grid[name], f"{where}.{name}", left_out)
    return _once(found, left_out)


def _part(name: str, value: Any, where: str, left_out: _LeftOut) -> list[Cell]:
    """What is multiplied with the rest"""
    if name == "zip":
        return _zip(value, where)
    if name == "any":
        return [cell for i, grid in enumerate(_list(value, where)) for cell in _grid(grid, f"{where}[{i}]", left_out)]
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


def _when(found: list[Cell], branches: Any, where: str, left_out: _LeftOut) -> list[Cell]:
    for i, branch in enumerate(_list(branches, where)):
        here = f"{where}[{i}]"
        if not isinstance(branch, Mapping) or set(branch) != {"if", "grid"}:
            raise ConfigError(f"{here}: 'if' and 'grid' are wanted, {branch!r} came")
        more = _grid(branch["grid"], f"{here}.grid", left_out)
        found = list(_widened(found, branch["if"], more, here))
    return found


def _widened(found: list[Cell], condition: Any, more: list[Cell], where: str) -> Iterator[Cell]:
    for cell in found:
        if holds(condition, cell, f"{where}.if"):
            for cell_of_branch in more:
                yield _joined((cell, cell_of_branch), where)
        else:
            yield cell


def _listed(found: list[Cell], explicit: Any, where: str, left_out: _LeftOut) -> list[Cell]:
    explicit = _list(explicit, where)
    for i, cell in enumerate(explicit):
        if not isinstance(cell, Mapping) or any(isinstance(v, list | Mapping) for v in cell.values()):
            raise ConfigError(f"{where}[{i}]: one value for each axis is wanted, {cell!r} came")
    return [*found, *map(dict, explicit)]


def _included(found: list[Cell], conditions: Any, where: str, left_out: _LeftOut) -> list[Cell]:
    conditions = _list(conditions, where)
    kept = []
    for cell in found:
        if any(holds(c, cell, f"{where}[{i}]") for i, c in enumerate(conditions)):
            kept.append(cell)
        else:
            left_out.append((cell, f"fits none of {where}"))
    return kept


def _excluded(found: list[Cell], conditions: Any, where: str, left_out: _LeftOut) -> list[Cell]:
    conditions = _list(conditions, where)
    kept = []
    for cell in found:
        first = next((i for i, c in enumerate(conditions) if holds(c, cell, f"{where}[{i}]")), None)
        if first is None:
            kept.append(cell)
        else:
            left_out.append((cell, f"{where}[{first}]: {conditions[first]}"))
    return kept


def _repeated(found: list[Cell], n: Any, where: str, left_out: _LeftOut) -> list[Cell]:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ConfigError(f"{where}: a number of seeds is wanted, {n!r} came")
    if any("seed" in cell for cell in found):
        raise ConfigError(f"{where}: seed is an axis already; keep one of both")
    return [{**cell, "seed": seed} for cell in found or [{}] for seed in range(1, n + 1)]


# In this order, after the product.
_LATER: dict[str, Callable[[list[Cell], Any, str, _LeftOut], list[Cell]]] = {
    "when": _when,
    "list": _listed,
    "include": _included,
    "exclude": _excluded,
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


def _once(found: list[Cell], left_out: _LeftOut) -> list[Cell]:
    kept: dict[str, Cell] = {}
    for cell in found:
        if kept.setdefault(repr(sorted(cell.items(), key=lambda item: item[0])), cell) is not cell:
            left_out.append((cell, SAME))
    return list(kept.values())


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f"{where}: a list is wanted, {value!r} came")
    return list(value)


def overridden(grid: Mapping[str, Any], name: str, values: list[Any]) -> tuple[dict[str, Any], bool]:
    """The grid with other values for an axis, wherever it is; and whether it was there.

    In pairs and samples the axis then multiplies instead; each explicit cell that names it is repeated with each value.
    """
    result: dict[str, Any] = {}
    there = False
    for word, value in grid.items():
        if word == name:
            there, result[word] = True, values
        elif word == "repeat" and name == "seed":
            there, result["seed"] = True, values
        elif word == "zip" and isinstance(value, Mapping) and name in value:
            there, result[name] = True, values
            if rest := {k: v for k, v in value.items() if k != name}:
                result[word] = rest
        elif word == "sample" and isinstance(value, Mapping) and name in (axes := value.get("axes") or {}):
            there, result[name] = True, values
            if rest := {k: v for k, v in axes.items() if k != name}:
                result[word] = {**value, "axes": rest}
        else:
            result[word], found = _within(word, value, name, values)
            there = there or found
    return result, there


def _within(word: str, value: Any, name: str, values: list[Any]) -> tuple[Any, bool]:
    """What holds cells or grids: `list`, `any` and `when`"""
    if word not in ("when", "any", "list") or not isinstance(value, list | tuple):
        return value, False
    if word == "list":
        rows = [[{**c, name: v} for v in values] if isinstance(c, Mapping) and name in c else [c] for c in value]
        return [c for row in rows for c in row], any(isinstance(c, Mapping) and name in c for c in value)
    found = [_inside(word, item, name, values) for item in value]
    return [item for item, _ in found], any(there for _, there in found)


def _inside(word: str, item: Any, name: str, values: list[Any]) -> tuple[Any, bool]:
    grid = item.get("grid") if word == "when" and isinstance(item, Mapping) else item
    if not isinstance(grid, Mapping):
        return item, False
    grid, there = overridden(grid, name, values)
    return ({**item, "grid": grid} if word == "when" else grid), there
