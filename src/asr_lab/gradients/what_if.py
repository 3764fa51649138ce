"""Every clipping choice applied to a recorded training.

It says what would have been clipped had the weights moved as they did; in a training of its own norms would be others.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asr_lab.clipping import EPS, Clipper
from asr_lab.clipping.agc import AdaptiveClipping
from asr_lab.clipping.history import AutoClipping, MedianClipping, ZClipping
from asr_lab.clipping.none import NoClipping
from asr_lab.clipping.norm import NormClipping
from asr_lab.clipping.separate import PerLayerClipping, PerParameterClipping
from asr_lab.clipping.sequence import SequenceClipping
from asr_lab.clipping.shear import ShearClipping
from asr_lab.clipping.skip import SkipClipping
from asr_lab.clipping.soft import SoftClipping
from asr_lab.clipping.value import ValueClipping
from asr_lab.gradients.advice import role, usable
from asr_lab.gradients.record import Floats, Record, together

TINY = np.finfo(np.float32).tiny
EVERY_STEP, LOOKED, ESTIMATED = "every step", "looked at", "estimated"


class Sequence(NamedTuple):
    """Some steps of a training with their norms, (N,) each."""

    before: Floats
    after: Floats
    clipped: Any  # of bool


class Replay(NamedTuple):
    """A clipping choice on a recorded training."""

    name: str
    clipped: float  # share of steps
    kept: float  # mean of norm after / norm before
    longest: float  # norm after, the largest
    role: str
    # EVERY_STEP and LOOKED, every `every`-th, are exact; ESTIMATED is from sampled elements or units of those.
    how: str


def replay(name: str, clipper: Clipper, record: Record) -> Replay | None:
    """None where the record has not what the choice looks at, or nobody knows what that is."""
    found = _known(clipper, record)
    if found is None or not len(found[0].before):
        return None
    (before, after, clipped), how = found
    share = float(clipped.mean())
    kept = float((after / np.maximum(before, TINY)).mean())
    return Replay(name, share, kept, float(after.max()), role(share), how)


def by_norm(clipper: Clipper, norms: Floats) -> Sequence:
    """The choice itself on gradients of one element with each of `norms` (N,), in order: for what sees the global norm
    alone."""
    parameter = torch.nn.Parameter(torch.ones(1))
    after, clipped = np.empty(len(norms)), np.empty(len(norms), bool)
    for i, norm in enumerate(norms.tolist()):
        parameter.grad = torch.tensor([norm])
        report = clipper([parameter])
        after[i], clipped[i] = report.norm_after, report.clipped
    return Sequence(norms, after, clipped)


def _known(clipper: Any, record: Record) -> tuple[Sequence, str] | None:
    if isinstance(clipper, SequenceClipping):
        first, second = clipper.parts
        found = _known(first, record)
        if found is None or not _sees_the_norm(second):
            return None
        (before, between, clipped), how = found
        rest = by_norm(second, between)
        return Sequence(before, rest.after, clipped | rest.clipped), how
    if _sees_the_norm(clipper):
        return by_norm(clipper, record.column("norm_before")[usable(record)].astype(np.float64)), EVERY_STEP
    choice = BY_LOOKS.get(type(clipper))
    if choice is None or not record.has(*choice.needs):
        return None
    how = LOOKED if isinstance(clipper, NormClipping) and clipper.p == np.inf else choice.how
    return choice.replay(clipper, _Looks(record)), how


def _sees_the_norm(clipper: Any) -> bool:
    if isinstance(clipper, NormClipping):
        return clipper.p == 2
    return isinstance(clipper, AutoClipping | MedianClipping | ZClipping | NoClipping | SkipClipping | SoftClipping)


class _Looks:
    """The close looks whose gradients are finite, in float64."""

    def __init__(self, record: Record):
        sample = self.sample = record.sample
        finite = np.isfinite(record.looks["norms"]).all(1)
        finite &= (record.looks["norms"] > 0).any(1)
        self.looks = {key: rows[finite].astype(np.float64) for key, rows in record.looks.items()}
        self.norms = self.looks["norms"]
        self.before = np.sqrt((self.norms**2).sum(1))
        # How many elements of its parameter each sampled one stands for.
        self.stands_for = (sample.sizes / np.maximum(1, np.bincount(sample.element_of, minlength=len(sample.sizes))))[
            sample.element_of
        ]

    def after(self, owners: NDArray[np.int64], kept: Floats, whole: Floats) -> Floats:
        """(M,) the norm after a change of single elements or units: what `kept` (M, S) of `whole` (M, S) leaves in the
        sample of a parameter, it leaves in the parameter, whose norm before is known."""
        n = len(self.sample.parameters)
        left, all_of_it = together(kept, owners, n), together(whole, owners, n)
        share = np.where(all_of_it > 0, left / np.maximum(all_of_it, TINY), 1.0)
        return np.sqrt(((self.norms * share) ** 2).sum(1))


def _separate(clipper: PerLayerClipping | PerParameterClipping, looks: _Looks) -> Sequence:
    names = looks.sample.parameters
    parts = [name.rpartition(".")[0] if isinstance(clipper, PerLayerClipping) else name for name in names]
    numbers = {part: i for i, part in enumerate(dict.fromkeys(parts))}
    norms = together(looks.norms, np.array([numbers[part] for part in parts]), len(numbers))
    scales = np.minimum(1.0, clipper.threshold / (norms + EPS))
    return Sequence(looks.before, np.sqrt(((norms * scales) ** 2).sum(1)), (scales < 1).any(1))


def _value(clipper: ValueClipping, looks: _Looks) -> Sequence:
    elements = looks.looks["elements"]
    after = looks.after(looks.sample.element_of, elements.clip(-clipper.threshold, clipper.threshold), elements)
    return Sequence(looks.before, after, looks.looks["peaks"].max(1) > clipper.threshold)


def _shear(clipper: ShearClipping, looks: _Looks) -> Sequence:
    """Of gradients as they came: what error feedback would have added to them is not known."""
    sizes = np.abs(looks.looks["elements"])
    limits = np.full(len(sizes), clipper.threshold or 0.0)
    if clipper.keep is not None:
        order = np.argsort(-sizes, axis=1)
        reached = np.cumsum(looks.stands_for[order], axis=1) >= clipper.keep * looks.stands_for.sum()
        last = np.minimum(reached.argmax(1), sizes.shape[1] - 1)
        limits = np.take_along_axis(sizes, np.take_along_axis(order, last[:, None], 1), 1)[:, 0]
    dropped = sizes < limits[:, None]
    after = looks.after(looks.sample.element_of, np.where(dropped, 0.0, sizes), sizes)
    return Sequence(looks.before, after, (dropped & (sizes > 0)).any(1))


def _adaptive(clipper: AdaptiveClipping, looks: _Looks) -> Sequence:
    sample, single = looks.sample, np.flatnonzero(looks.sample.n_units == 1)
    # A parameter that is one unit has its own norms; of the others there are sampled units.
    owners = np.concatenate([single, sample.unit_of])
    grads = np.concatenate([looks.norms[:, single], looks.looks["unit_norms"]], axis=1)
    weights = np.concatenate([looks.looks["weights"][:, single], looks.looks["unit_weights"]], axis=1)
    scales = np.minimum(1.0, clipper.threshold * np.maximum(weights, clipper.eps) / np.maximum(grads, EPS))
    if clipper.exclude:
        left_alone = np.array([name.startswith(clipper.exclude) for name in sample.parameters])
        scales[:, left_alone[owners]] = 1.0
    return Sequence(looks.before, looks.after(owners, grads * scales, grads), (scales < 1).any(1))


def _other_norm(clipper: NormClipping, looks: _Looks) -> Sequence:
    if clipper.p == np.inf:
        norms = looks.looks["peaks"].max(1)
    else:
        norms = (np.abs(looks.looks["elements"]) * looks.stands_for).sum(1)
    scales = np.minimum(1.0, clipper.threshold / (norms + EPS))
    return Sequence(looks.before, looks.before * scales, scales < 1)


class _Choice(NamedTuple):
    replay: Callable[[Any, _Looks], Sequence]
    how: str
    needs: tuple[str, ...]  # keys of LOOK


BY_LOOKS: dict[type, _Choice] = {
    PerLayerClipping: _Choice(_separate, LOOKED, ("peaks",)),  # a record of whole layers has no peaks
    PerParameterClipping: _Choice(_separate, LOOKED, ("peaks",)),
    ValueClipping: _Choice(_value, ESTIMATED, ("elements", "peaks")),
    ShearClipping: _Choice(_shear, ESTIMATED, ("elements",)),
    AdaptiveClipping: _Choice(_adaptive, ESTIMATED, ("unit_norms", "unit_weights")),
    NormClipping: _Choice(_other_norm, ESTIMATED, ("elements", "peaks")),
}
