"""A fair mean over several runs: each side of a comparison made of the same cells, as far as they are there."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from asr_lab.report.differences import ABSENT, differences
from asr_lab.report.records import as_text
from asr_lab.report.sides import Member, Side

Replicate = tuple[Member, ...]  # runs of one seed, one in each stratum


class Matched(NamedTuple):
    """The runs that are compared."""

    replicates: list[list[Replicate]]  # of each side: what its seeds are to the statistics
    over: dict[str, list[str]]  # the keys that vary alike in every side, and their values
    notes: list[str]


def matched(sides: Sequence[Side]) -> Matched:
    """Put runs together in which the same other keys have the same values.

    `clipping=none` against `clipping=norm` in a grid over encoders is a mean over the encoders, each counting the
    same; a run whose counterpart has not finished is left out and named. Replicates are the seeds.
    """
    keys = pooled_keys(sides)
    found = [_strata(side, keys) for side in sides]
    shared = [values for values in found[0] if all(values in strata for strata in found)]
    if not shared:
        alone = [[(m,) for m in side.members] for side in sides]
        return Matched(alone, {}, [f"the runs of each have no value of {', '.join(keys)} in common to be matched by"])
    replicates, notes = [], []
    for side, strata in zip(sides, found, strict=True):
        n = min(len(strata[values]) for values in shared)
        replicates.append([tuple(strata[values][r] for values in shared) for r in range(n)])
        used = {id(m) for replicate in replicates[-1] for m in replicate}
        left = [m.run.name for m in side.members if id(m) not in used]
        if left:
            shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
            notes.append(f"{side.letter}: left out, for their counterparts are not there: {shown}")
    over = {key: list(dict.fromkeys(values[i] for values in shared)) for i, key in enumerate(keys)}
    return Matched(replicates, over, notes)


def pooled_keys(sides: Iterable[Side]) -> list[str]:
    """The keys, the seed apart, that vary within every side: what a comparison of levels is made over."""
    within = [differences({str(i): m.run.config for i, m in enumerate(side.members)}) for side in sides]
    return [key for key in within[0] if all(key in keys for keys in within)]


def _strata(side: Side, keys: Sequence[str]) -> dict[tuple[str, ...], list[Member]]:
    """The runs of a side by their values of `keys`, those with seeds that all strata have first."""
    strata: dict[tuple[str, ...], list[Member]] = {}
    for m in side.members:
        flat = m.flat
        strata.setdefault(tuple(as_text(flat.get(key, ABSENT)) for key in keys), []).append(m)
    common = set.intersection(*({m.seed for m in members} for members in strata.values()))
    return {
        values: sorted(members, key=lambda m: (m.seed not in common, m.seed, m.run.name))
        for values, members in strata.items()
    }
