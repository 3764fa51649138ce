"""Which factor matters: the analysis of variance of the planned cells' rates."""

import math
from collections.abc import Sequence

from asr_lab.report.collect import Cell
from asr_lab.report.configurations import NOTHING, cell_rate
from asr_lab.report.stats import Factorial, factorial

_LEAST = 3  # runs a level of a factor should have on average: a number drawn anew for each run is no level
_MANY = 0.05  # share of exploded cells from which ranks take the place of rates, which are easier to read
_TERMS = 12  # factors; more make more pairs than anybody reads


def analysis(cells: Sequence[Cell], swept: Sequence[str], score: str) -> tuple[Factorial | None, list[str]]:
    """(the analysis, or None where there are too few runs; factors that were left out).

    Cells that exploded are censored: worse than any number, which makes it an analysis of ranks where they are many.
    Others without a result are missing. Both are counted.
    """
    planned = [c for c in cells if c.planned]
    levels = _levels(planned, swept)
    kept = {k: values for k, values in levels.items() if len(set(values)) * _LEAST <= len(planned) or len(levels) == 1}
    kept = dict(list(kept.items())[:_TERMS])
    left_out = [k for k in levels if k not in kept]
    if not kept:
        return None, left_out
    seeds = [c.seed for c in planned]
    if len(set(seeds)) * _LEAST <= len(planned):
        kept["seed"] = seeds
    values = [cell_rate(c, score) if c.done else math.inf if c.status == "exploded" else math.nan for c in planned]
    try:
        return factorial(values, kept, ranks=values.count(math.inf) > _MANY * len(values)), left_out
    except ValueError:
        return None, left_out


def _levels(cells: Sequence[Cell], swept: Sequence[str]) -> dict[str, list[str]]:
    """Of each factor the level of each cell. A number that not every choice of its group has (`clipping.threshold`) is
    no factor beside the group: the two together are one."""
    found = {k: [c.factors.get(k, NOTHING) for c in cells] for k in swept}
    for key in swept:
        group, inside, _ = key.partition(".")
        if not inside or group not in found:
            continue
        pairs = set(zip(found[group], found[key], strict=True))
        if len(pairs) < len(set(found[group])) * len(set(found[key])):
            values = found.pop(key)
            found[group] = [a if b == NOTHING else f"{a} {b}" for a, b in zip(found[group], values, strict=True)]
    return found
