"""Stages in a YAML: tables of numbers and depths, checked, and layers spread over them."""

from collections.abc import Sequence
from typing import Any


def spread(n_layers: int, shares: Sequence[int]) -> list[int]:
    """How many of `n_layers` each stage gets, in proportion: `spread(sum(shares), shares) == shares`."""
    whole(n_layers=n_layers, n_stages=len(shares))
    ends = [round(n_layers * sum(shares[: i + 1]) / sum(shares)) for i in range(len(shares))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def rows(key: str, table: Any, *columns: str) -> list[Any]:
    """A list of lists from a YAML, every row with these columns.

    Raises:
        ValueError: it is empty, or a row is no list of that many positive numbers.
    """
    wanted = f"{key} wants rows of [{', '.join(columns)}], positive numbers"
    if not isinstance(table, list) or not table:
        raise ValueError(f"{wanted}, at least one; {table!r} came")
    for row in table:
        if not isinstance(row, list) or len(row) != len(columns) or not all(_positive(v) for v in row):
            raise ValueError(f"{wanted}; {row!r} came")
    return table


def whole(**values: Any) -> None:
    """Raises ValueError unless each value is a whole number of at least 1."""
    for key, value in values.items():
        if not (isinstance(value, int) and value >= 1):
            raise ValueError(f"{key} is a whole number of at least 1, {value!r} came")


def odd(**values: Any) -> None:
    """Raises ValueError unless each value is an odd number of frames, so that a window can be centred on a frame."""
    whole(**values)
    for key, value in values.items():
        if value % 2 == 0:
            raise ValueError(f"{key} must be odd (the window is centred), {value} came")


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0
