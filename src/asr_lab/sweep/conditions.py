"""Conditions on a cell of a grid: `{encoder: rnn, clipping.threshold: "> 1"}`, all of whose entries must hold."""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from asr_lab.errors import ConfigError

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARISON = re.compile(r"\s*(>=|<=|!=|>|<)\s*(.+?)\s*")


def holds(condition: Any, cell: Mapping[str, Any], where: str) -> bool:
    """Whether a cell fulfils a condition; an axis that the cell has not fulfils only "!= value".

    Raises:
        ConfigError: the condition is none, or compares what is no number.
    """
    if not isinstance(condition, Mapping) or not condition:
        raise ConfigError(f"{where}: a condition such as {{encoder: rnn}} is wanted, {condition!r} came")
    return all(_fits(wanted, cell, name, where) for name, wanted in condition.items())


def _fits(wanted: Any, cell: Mapping[str, Any], name: str, where: str) -> bool:
    if isinstance(wanted, list | tuple):
        return any(_fits(one, cell, name, where) for one in wanted)
    found = _COMPARISON.fullmatch(wanted) if isinstance(wanted, str) else None
    if not found:
        return name in cell and cell[name] == wanted
    sign, limit = found[1], found[2]
    if sign == "!=":
        return name not in cell or str(cell[name]) != limit
    if name not in cell:
        return False
    try:
        return _COMPARISONS[sign](float(cell[name]), float(limit))
    except (TypeError, ValueError):
        raise ConfigError(f"{where}.{name}: {sign} compares numbers, {cell[name]!r} and {limit!r} came") from None
