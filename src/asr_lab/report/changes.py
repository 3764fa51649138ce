"""The utterances that changed most between two sides."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from asr_lab.report.compared import Change, Entry
from asr_lab.report.sides import Member
from asr_lab.report.stats import Array


def changes(entries: Sequence[Entry], errors: Sequence[Array], score: str) -> list[Change]:
    """Utterances of which a side makes more or fewer errors than the first, the largest change first.

    Args:
        errors: of each side the edits (S, N) of its seeds.
    """
    means = np.stack([e.mean(0) for e in errors])  # (K, N)
    change = means[1:] - means[0]
    furthest = np.abs(change).argmax(0)
    change = change[furthest, np.arange(change.shape[1])]
    scores = entries[0].members[0].scores
    order = sorted(np.flatnonzero(change), key=lambda i: (-abs(change[i]), scores.ids[i]))
    return [_change(entries, int(i), means[:, i], float(change[i]), score) for i in order]


def _change(entries: Sequence[Entry], i: int, errors: Array, change: float, score: str) -> Change:
    scores = entries[0].members[0].scores
    return Change(
        id=scores.ids[i],
        speaker=scores.speakers[i] if scores.speakers else "",
        ref=scores.refs[i],
        hyps=tuple(_nearest(e.members, i, float(mean), score) for e, mean in zip(entries, errors, strict=True)),
        errors=tuple(map(float, errors)),
        change=change,
    )


def _nearest(members: Sequence[Member], i: int, mean: float, score: str) -> str:
    """The hypothesis of the run whose errors are nearest to the mean of all; among equals, what most of them said."""
    said = Counter(m.scores.hyps[i] for m in members)

    def rank(m: Member) -> tuple[float, int]:
        found = m.scores.counts(score)
        assert found is not None, "checked before"
        return abs(float(found[0][i]) - mean), -said[m.scores.hyps[i]]

    return min(members, key=rank).scores.hyps[i]
