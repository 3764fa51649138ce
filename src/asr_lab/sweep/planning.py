"""From cells to resolved configurations, many at once: what each axis changes is composed once and laid over a base.

Composing one configuration with Hydra takes a fraction of a second, too long for a grid of 100,000. Two axes that do
not meddle with each other can be composed apart: the configuration of a cell is the base with the changes of both. Axes
meddle when one changes a key that the other changes or that its choices interpolate (`${...}`); those are composed
together. Some cells are composed in full as well, and must come out the same.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from asr_lab.run import flatten, unflatten
from asr_lab.sweep.algebra import Cell
from asr_lab.sweep.identity import Identity
from asr_lab.sweep.references import ANY, references
from asr_lab.sweep.values import write

PROBES = 6


class Change(NamedTuple):
    """What one choice on some axes does to the base: flat keys."""

    gone: frozenset[str]
    values: dict[str, Any]
    choices: dict[str, str | None]  # of config groups; None: there is none any more

    def over(self, flat: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in flat.items() if k not in self.gone} | self.values


class Composed(NamedTuple):
    """One full composition."""

    flat: dict[str, Any]
    choices: dict[str, str]
    folder: str  # hydra.sweep.dir
    refers: dict[str, frozenset[str]]  # `references` of it

    @property
    def tops(self) -> frozenset[str]:
        return frozenset(key.partition(".")[0] for key in self.flat)

    def refers_within(self, groups: set[str]) -> set[str]:
        """Keys that are named by interpolations in top-level groups"""
        return {name for key, names in self.refers.items() if key.partition(".")[0] in groups for name in names}


Compose = Callable[[list[str]], Composed]


def compose_with(load: Callable[[list[str]], DictConfig], resolve: Callable[[DictConfig], dict[str, Any]]) -> Compose:
    """`load`: Hydra's composition with overrides; `resolve`: to plain values"""

    def compose(overrides: list[str]) -> Composed:
        cfg = load(overrides)
        choices = {str(k): str(v) for k, v in cfg.hydra.runtime.choices.items() if v is not None}
        own = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"])
        return Composed(flatten(resolve(cfg)), choices, str(cfg.hydra.sweep.dir), references(own))

    return compose


class Configs(Protocol):
    """Resolved configurations of the cells of a grid, by their place in it."""

    folder: str  # of the experiment
    tops: frozenset[str]  # first parts of all keys

    def flat(self, cell: Cell) -> dict[str, Any]:
        """The cell's resolved configuration, dotted keys"""
        ...

    def looker(self, cell: Cell) -> Callable[[str], Any]:
        """Gives its values by dotted key; a mapping where the key is none of a leaf, None where there is nothing"""
        ...

    def choices(self, cell: Cell) -> dict[str, str]: ...

    def fingerprints(self) -> Iterator[str]: ...


def composer(compose: Compose, cells: Sequence[Cell], groups: Iterable[str]) -> Configs:
    """The quick way where it is sure to give the same, or each cell in full."""
    groups = set(groups)
    axes = {axis for cell in cells for axis in cell}
    plain = not any(axis.startswith(("+", "~", "match")) or "@" in axis for axis in axes)
    n_composed = 1 + len({(axis, repr(cell[axis])) for cell in cells for axis in cell if axis in groups}) + PROBES + 2
    if plain and n_composed < len(cells):
        try:
            planner = Planner(compose, cells, groups)
        except HydraException:  # an override of the command line that only fits a cell's choices
            return InFull(compose, cells)
        base = planner.base.flat
        if base.get("match.by", "none") == "none" and flatten(unflatten(base)) == base and planner.wrong() is None:
            return planner
    return InFull(compose, cells)


def overrides(cell: Cell) -> list[str]:
    return [f"{axis}={write(value)}" for axis, value in cell.items()]


class InFull:
    """Each cell composed by Hydra."""

    def __init__(self, compose: Compose, cells: Sequence[Cell]):
        self.compose, self.cells = compose, cells
        self._composed: dict[str, Composed] = {}
        first = self._of(cells[0])
        self.folder, self.tops = first.folder, first.tops

    def flat(self, cell: Cell) -> dict[str, Any]:
        return self._of(cell).flat

    def looker(self, cell: Cell) -> Callable[[str], Any]:
        return partial(_look, self.flat(cell))

    def choices(self, cell: Cell) -> dict[str, str]:
        return self._of(cell).choices

    def fingerprints(self) -> Iterator[str]:
        return (Identity(self.flat(cell)).of([]) for cell in self.cells)

    def _of(self, cell: Cell) -> Composed:
        key = repr(cell)
        if key not in self._composed:
            self._composed[key] = self.compose(overrides(cell))
        return self._composed[key]


class Planner:
    """What each axis changes over one base."""

    def __init__(self, compose: Compose, cells: Sequence[Cell], groups: Iterable[str]):
        """`groups`: those of the axes that are config groups."""
        self.compose, self.cells, self.groups = compose, cells, set(groups)
        self.base = compose([])
        self.folder, self.tops = self.base.folder, self.base.tops
        self._composed: dict[tuple, Change] = {}
        self._inside: dict[tuple[int, str], bool] = {}
        self.classes = self._classes()

    def looker(self, cell: Cell) -> Callable[[str], Any]:
        return partial(self._look, cell, self.changes(cell))

    def _look(self, cell: Cell, changes: list[Change], key: str) -> Any:
        for change in reversed(changes):
            if key in change.values:
                return change.values[key]
            if key in change.gone:
                return None
        if key in self.base.flat:
            return self.base.flat[key]
        inside = self._has_inside(self.base.flat, key) or any(self._has_inside(c.values, key) for c in changes)
        return _look(self.flat(cell), key) if inside else None

    def _has_inside(self, flat: dict[str, Any], key: str) -> bool:
        """Whether there are keys below one; remembered, both live as long as this object"""
        known = self._inside.get((id(flat), key))
        if known is None:
            known = self._inside[id(flat), key] = any(k.startswith(key + ".") for k in flat)
        return known

    def changes(self, cell: Cell) -> list[Change]:
        """Those of a cell, in the order in which they are laid over the base."""
        return [self._change(axes, cell) for axes in self.classes if any(a in cell for a in axes)]

    def flat(self, cell: Cell) -> dict[str, Any]:
        """The cell's resolved configuration, dotted keys"""
        flat = self.base.flat
        for change in self.changes(cell):
            flat = change.over(flat)
        return flat

    def choices(self, cell: Cell) -> dict[str, str]:
        chosen: dict[str, str | None] = dict(self.base.choices)
        for change in self.changes(cell):
            chosen |= change.choices
        return {k: v for k, v in chosen.items() if v is not None}

    def wrong(self) -> Cell | None:
        """A cell that comes out differently when it is composed in full, among a few of them; None as it should be."""
        chosen = random.Random(0).sample(range(len(self.cells)), min(PROBES, len(self.cells)))
        for i in sorted({0, len(self.cells) - 1, *chosen}):
            if self.compose(overrides(self.cells[i])).flat != self.flat(self.cells[i]):
                return self.cells[i]
        return None

    def fingerprints(self) -> Iterator[str]:
        """That of each cell"""
        identity = Identity(self.base.flat)
        return (identity.of(self.changes(cell)) for cell in self.cells)

    def _change(self, axes: tuple[str, ...], cell: Cell) -> Change:
        part = {a: cell[a] for a in axes if a in cell}
        key = (axes, repr(part))
        if key not in self._composed:
            self._composed[key] = self._simple(part) or self._difference(self.compose(overrides(part)))
        return self._composed[key]

    def _simple(self, part: Cell) -> Change | None:
        """A number that nobody refers to needs no composition."""
        [(axis, value), *more] = part.items()
        plain = isinstance(value, int | float | bool) and isinstance(self.base.flat.get(axis), int | float | bool)
        if more or not plain or self._meddles(axis, self.base) or type(value) is not type(self.base.flat[axis]):
            return None
        return Change(frozenset(), {axis: value}, {})

    def _difference(self, other: Composed) -> Change:
        base = self.base
        values = {k: v for k, v in other.flat.items() if k not in base.flat or not _same(base.flat[k], v)}
        choices: dict[str, str | None] = dict.fromkeys(base.choices.keys() - other.choices.keys())
        choices |= {k: v for k, v in other.choices.items() if base.choices.get(k) != v}
        return Change(frozenset(base.flat.keys() - other.flat.keys()), values, choices)

    def _meddles(self, axis: str, composed: Composed) -> bool:
        """Whether an interpolation of a composition names the axis, or something in or around it."""
        key = axis.replace("/", ".")
        return any(_names(names, key) for names in composed.refers.values())

    def _classes(self) -> list[tuple[str, ...]]:
        """Axes that are composed together; groups before the values inside them."""
        axes = list(dict.fromkeys(a for cell in self.cells for a in cell))
        parent = {a: a for a in axes}

        def root(a: str) -> str:
            while parent[a] != a:
                a = parent[a]
            return a

        touched = {a: self._touched(a) for a in axes}
        for a, b in itertools.combinations(axes, 2):
            if self._together(a, b, touched):
                parent[root(b)] = root(a)
        classes: dict[str, list[str]] = {}
        for a in axes:
            classes.setdefault(root(a), []).append(a)
        return sorted(map(tuple, classes.values()), key=lambda c: not any(a in self.groups for a in c))

    def _touched(self, axis: str) -> tuple[set[str], set[str]]:
        """(keys that any of its values changes, keys that its choices refer to)"""
        if axis not in self.groups:
            return {axis}, {name for names in self.base.refers.values() for name in names}
        changed: set[str] = set()
        refers: set[str] = set()
        for value in {repr(c[axis]): c[axis] for c in self.cells if axis in c}.values():
            composed = self.compose([f"{axis}={write(value)}"])
            self._composed[((axis,), repr({axis: value}))] = change = self._difference(composed)
            changed |= change.gone | change.values.keys()
            top = {k.partition(".")[0] for k in changed} | {axis.partition("/")[0]}
            refers |= composed.refers_within(top) | self.base.refers_within(top)
        return changed, refers

    def _together(self, a: str, b: str, touched: dict[str, tuple[set[str], set[str]]]) -> bool:
        (changed_a, refers_a), (changed_b, refers_b) = touched[a], touched[b]
        a_group, b_group = a in self.groups, b in self.groups
        if a_group != b_group:  # a value inside a group: laid over it, if every choice and the base have it
            group, value = (a, b) if a_group else (b, a)
            refers = refers_a if a_group else refers_b
            inside = value.startswith(group + ".")
            absent = inside and value not in self.base.flat
            return absent or _names(refers, value)
        if not a_group:
            return _names(refers_a, a) and _names(refers_a, b)
        crossing = changed_a & changed_b
        return (
            bool(crossing) or any(_names(refers_b, k) for k in changed_a) or any(_names(refers_a, k) for k in changed_b)
        )


def _look(flat: dict[str, Any], key: str) -> Any:
    if key in flat:
        return flat[key]
    inside = {k.removeprefix(key + "."): v for k, v in flat.items() if k.startswith(key + ".")}
    return unflatten(inside) if inside else None


def _overlap(key: str, other: str) -> bool:
    return key == other or key.startswith(other + ".") or other.startswith(key + ".")


def _names(refers: Iterable[str], key: str) -> bool:
    return any(r == ANY or _overlap(key, r) for r in refers)


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a == b
