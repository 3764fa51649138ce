"""Which elements and units of a network's gradients stand for all: drawn once, the same in every process."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
SEED = 0


class Sample(NamedTuple):
    """What is known of P parameters, and which of them E sampled elements and U sampled units belong to.

    A unit is a row of a matrix or a filter of a kernel, as in clipping/agc.py. Of a parameter with a single unit (a
    bias) none is drawn: its norm says it all.
    """

    parameters: tuple[str, ...]
    sizes: Ints  # (P,) elements
    n_units: Ints  # (P,)
    element_of: Ints  # (E,) number of the parameter, rising
    unit_of: Ints  # (U,)


def draw(
    shapes: dict[str, tuple[int, ...]], n_elements: int, n_units: int
) -> tuple[Sample, dict[int, Ints], dict[int, Ints]]:
    """The sample, and for each parameter by its number the flat places of its elements and the rows of its units.

    Larger parameters give more, in proportion to the square root of their size: in proportion to the size a bias would
    give nothing. Each gives one at least, so a few more than `n_elements` may come.
    """
    rng = np.random.default_rng(SEED)  # its own: a training's draws stay as they are
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    rows = [shape[0] if len(shape) > 1 else 1 for shape in shapes.values()]
    elements = _places(rng, sizes, n_elements, least=1)
    units = _places(rng, rows, n_units, least=2)
    sample = Sample(tuple(shapes), np.array(sizes), np.array(rows), _owners(elements), _owners(units))
    return sample, elements, units


def layer_of(name: str) -> str:
    """The layer that a parameter is reported with: the path to the first number in its name (`encoder.layers.3`), or
    its first two parts (`encoder.subsampling`, `decoder.output`)."""
    parts = name.split(".")[:-1]
    cut = next((i + 1 for i, part in enumerate(parts) if part.isdigit()), 2)
    return ".".join(parts[:cut]) or name


def _places(rng: np.random.Generator, sizes: list[int], n: int, least: int) -> dict[int, Ints]:
    """Of each part of at least `least`, by its number, the places drawn from it, rising."""
    roots = {i: size**0.5 for i, size in enumerate(sizes) if size >= least}
    each = n / max(1.0, sum(roots.values()))
    counts = {i: min(sizes[i], max(1, round(each * root))) for i, root in roots.items()}
    return {i: np.sort(rng.choice(sizes[i], count, replace=False)) for i, count in counts.items()}


def _owners(places: dict[int, Ints]) -> Ints:
    return np.repeat(np.array(list(places), np.int64), [len(p) for p in places.values()])
