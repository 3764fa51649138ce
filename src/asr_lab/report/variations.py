"""In what the finished cells' configurations differ, and whether the swept factors explain it."""

from collections.abc import Sequence
from typing import NamedTuple

from asr_lab.report.collect import Cell
from asr_lab.report.configurations import Configuration
from asr_lab.report.differences import ABSENT, belongs, differences
from asr_lab.report.records import as_text

_SHOWN = 6  # values of a key


class Variation(NamedTuple):
    """One key of the configurations."""

    key: str
    values: list[tuple[str, int]]  # each with the number of its cells, the most frequent first
    more: int  # values that are not listed
    factor: str  # the swept factor it belongs to; "" when none explains it

    @property
    def shown(self) -> str:
        listed = "; ".join(f"{value} ({n})" for value, n in self.values)
        return listed + (f"; and {self.more} more" if self.more else "")


def variations(cells: Sequence[Cell], swept: Sequence[str]) -> list[Variation]:
    """Keys that can change a number and differ between finished cells, unexplained ones first."""
    done = [c for c in cells if c.done and c.planned and c.config]
    found = []
    for key, values in differences({c.name: c.config for c in done}).items():
        counts: dict[str, int] = {}
        for value in values:
            said = ABSENT if value == ABSENT else as_text(value)
            counts[said] = counts.get(said, 0) + 1
        listed = sorted(counts.items(), key=lambda item: -item[1])
        # The most specific one: `clipping.threshold` rather than `clipping`.
        factor = next((f for f in sorted(swept, key=len, reverse=True) if belongs(key, f)), "")
        found.append(Variation(key, listed[:_SHOWN], max(0, len(listed) - _SHOWN), factor))
    return sorted(found, key=lambda v: bool(v.factor))


def between_seeds(rows: Sequence[Configuration]) -> list[tuple[str, list[str]]]:
    """(configuration, keys) where seeds of one configuration differ in more than their seed: no repeat at all."""
    found = []
    for row in rows:
        configs = {c.name: c.config for c in row.done if c.config}
        if len(configs) > 1 and (keys := list(differences(configs))):
            found.append((row.label, keys))
    return found
