"""Label-synchronous beam search: every hypothesis grows by one label a step, under a weighted sum of scorers.

All hypotheses of all utterances are rows of one batch. An utterance leaves it when it is finished.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asr_lab.decoding import Scorer
from asr_lab.layers.masks import valid_frames
from asr_lab.types import Hypothesis


class Term(NamedTuple):
    """One term of the sum. A scorer with `attended(state) -> (N,U)` tells the attention with which it predicts the
    next label; the first term's gives a hypothesis its frames and its coverage."""

    weight: float
    scorer: Scorer
    state: Any  # of the empty hypothesis of each utterance


class Ranking:
    """The score of a whole hypothesis of n labels (the end not counted), from the weighted sum of its terms:

        (sum + label_bonus n) / ((5 + n) / 6)^length_norm + coverage c,    c = sum_u log min(sum_i a_iu, 1)

    over encoder frames u and labels i, the end among them, a_iu the attention (Wu et al. 2016, equation 14). An unseen
    frame, a pause say, would make c endless, so that no frame counts below `coverage_floor`.
    """

    def __init__(self, length_norm: float, label_bonus: float, coverage: float, coverage_floor: float):
        for name, value in (("length_norm", length_norm), ("coverage", coverage)):
            if not 0 <= value < math.inf:
                raise ValueError(f"decoding.{name} must not be negative (0: none), {value} came")
        if not 0 < coverage_floor <= 1:
            raise ValueError(f"decoding.coverage_floor lies in (0, 1], {coverage_floor} came")
        self.length_norm, self.label_bonus = length_norm, label_bonus
        self.coverage, self.floor = coverage, coverage_floor

    def __call__(self, totals: Tensor, n_labels: Tensor | int, covered: Tensor | None, lens: Tensor) -> Tensor:
        """(A,W) sums, their numbers of labels, attention so far (A,W,U), encoder frames (A,) -> (A,W)"""
        scores = (totals + self.label_bonus * n_labels) / ((5 + n_labels) / 6) ** self.length_norm
        if self.coverage and covered is not None:
            seen = covered.clamp(self.floor, 1).log()
            scores = scores + self.coverage * (seen * valid_frames(lens, covered.shape[2])[:, None]).sum(dim=2)
        return scores


class _Live(NamedTuple):
    """Hypotheses that have not ended: W slots for each of A utterances, those that are empty at -inf.

    Slot 0 takes the best next label, whatever the others do: greedy search. The others are the beam.
    """

    utterances: Tensor  # (A,) indices in the batch
    totals: Tensor  # (A, W)
    labels: Tensor  # (A, W, n)
    frames: Tensor | None  # (A, W, n)
    covered: Tensor | None  # (A, W, U)
    states: list[Any]  # of A * W rows each


@torch.no_grad()
def label_sync(
    terms: list[Term], lens: Tensor, max_labels: Tensor, beam: int, ranking: Ranking
) -> list[list[Hypothesis]]:
    """The n-best, at most `beam`, of each of B utterances with lens (B,) encoder frames and max_labels (B,) at most.

    In a step the best `beam` continuations are kept. Those that end leave the beam, so that `beam=1` is greedy. What
    has reached its most labels can only end. An utterance is finished when it has `beam` ended hypotheses, greedy's
    among them, and no live one would be better if it ended as it stands. Where labels can only cost (no length_norm,
    no bonus) no live one can then become better.
    """
    terms = [t for t in terms if t.weight] or terms[:1]
    live = _beginning(terms, len(lens), beam, lens.device)
    ended: list[dict[tuple, Hypothesis]] = [{} for _ in range(len(lens))]
    for n in range(int(max_labels.max()) + 1):
        grown, parents, labels, n_end = _grown(terms, live, n >= max_labels[live.utterances])
        is_end = (labels == n_end) & (grown.totals > -math.inf)
        lens_here = lens[live.utterances]
        scores = ranking(grown.totals, n, grown.covered, lens_here)
        _collect(ended, grown, scores, is_end)
        going = grown.totals.masked_fill(is_end, -math.inf)
        hopes = ranking(going, n + 1, grown.covered, lens_here).masked_fill(going == -math.inf, -math.inf)
        keep = torch.tensor(list(_unfinished(ended, live.utterances, hopes, beam)), device=lens.device)
        if not len(keep):
            break
        live = _advanced(terms, grown._replace(totals=going), keep, parents, labels.clamp(max=n_end - 1))
    nothing = [Hypothesis([], -math.inf)]
    return [sorted(found.values(), key=lambda h: -h.score)[:beam] or nothing for found in ended]


def _beginning(terms: list[Term], n_utterances: int, beam: int, device: torch.device) -> _Live:
    width = 1 if beam == 1 else beam + 1
    rows = torch.arange(n_utterances, device=device)
    totals = torch.full((n_utterances, width), -math.inf, device=device)
    totals[:, :2] = 0
    labels = torch.zeros(n_utterances, width, 0, dtype=torch.long, device=device)
    frames = labels if hasattr(terms[0].scorer, "attended") else None
    states = [t.scorer.select(t.state, rows.repeat_interleave(width)) for t in terms]
    return _Live(rows, totals, labels, frames, None, states)


def _grown(terms: list[Term], live: _Live, must_end: Tensor) -> tuple[_Live, Tensor, Tensor, int]:
    """Hypotheses (labels and all) one label longer, but not their states; parents and labels (A,W); the end's label."""
    width = live.totals.shape[1]
    scores = sum_of_scores(terms, live.states).unflatten(0, (-1, width))
    n_end = scores.shape[2] - 1
    scores[:, :, :-1].masked_fill_(must_end[:, None, None], -math.inf)
    scores = scores + live.totals[:, :, None]
    totals, labels = scores[:, :1].max(dim=2)
    parents = torch.zeros_like(labels)
    if width > 1:
        best = scores[:, 1:].flatten(1).topk(width - 1, dim=1)
        totals = torch.cat([totals, best.values], dim=1)
        parents = torch.cat([parents, best.indices // (n_end + 1) + 1], dim=1)
        labels = torch.cat([labels, best.indices % (n_end + 1)], dim=1)
    history = torch.cat([_of(live.labels, parents), labels[:, :, None]], dim=2)
    frames = covered = None
    if live.frames is not None:
        attended = terms[0].scorer.attended(live.states[0]).unflatten(0, (-1, width))  # pyright: ignore
        covered = _of(attended if live.covered is None else live.covered + attended, parents)
        frames = torch.cat([_of(live.frames, parents), _of(attended, parents).argmax(dim=2, keepdim=True)], dim=2)
    grown = live._replace(totals=totals, labels=history, frames=frames, covered=covered)
    return grown, parents, labels, n_end


def _collect(ended: list[dict[tuple, Hypothesis]], grown: _Live, scores: Tensor, is_end: Tensor) -> None:
    places = is_end.nonzero()
    if not len(places):
        return
    a, w = places.unbind(1)
    columns = [grown.utterances[a], scores[a, w], grown.labels[a, w, :-1]]
    columns.append(grown.frames[a, w, :-1] if grown.frames is not None else columns[0])
    for u, score, labels, frames in zip(*(c.tolist() for c in columns), strict=True):
        # Greedy's hypothesis may be in the beam, too.
        ended[u][tuple(labels)] = Hypothesis(labels, score, None if grown.frames is None else frames)


def _unfinished(ended: list[dict[tuple, Hypothesis]], utterances: Tensor, hopes: Tensor, beam: int) -> Iterator[int]:
    """Which of the A utterances go on."""
    for a, (u, row) in enumerate(zip(utterances.tolist(), hopes.tolist(), strict=True)):
        if len(ended[u]) < beam or row[0] > -math.inf:
            go_on = max(row) > -math.inf
        else:
            go_on = max(row) > sorted((h.score for h in ended[u].values()), reverse=True)[beam - 1]
        if go_on:
            yield a


def _advanced(terms: list[Term], grown: _Live, keep: Tensor, parents: Tensor, labels: Tensor) -> _Live:
    """The utterances `keep`, with the states after their hypotheses' last labels."""
    rows = (keep[:, None] * parents.shape[1] + parents[keep]).flatten()
    last = labels[keep].flatten()
    states = [t.scorer.advance(t.scorer.select(s, rows), last) for t, s in zip(terms, grown.states, strict=True)]
    frames, covered = (None if x is None else x[keep] for x in (grown.frames, grown.covered))
    return _Live(grown.utterances[keep], grown.totals[keep], grown.labels[keep], frames, covered, states)


def _of(x: Tensor, parents: Tensor) -> Tensor:
    """(A,W,n), (A,W) -> (A,W,n): what each slot has from its parent"""
    return x.gather(1, parents[:, :, None].expand(-1, -1, x.shape[2]))


def sum_of_scores(terms: list[Term], states: list[Any]) -> Tensor:
    """(N,V+1), the next label's"""
    scores = [t.weight * t.scorer.scores(s) for t, s in zip(terms, states, strict=True)]
    return torch.stack(scores).sum(dim=0)


@torch.no_grad()
def label_sync_scores(terms: list[Term], lens: Tensor, sequences: list[list[int]], ranking: Ranking) -> list[float]:
    """The score that `label_sync` gives one label sequence for each utterance, its end included."""
    terms = [t for t in terms if t.weight] or terms[:1]
    n_labels = torch.tensor([len(s) for s in sequences], device=lens.device)
    padded = torch.zeros(len(sequences), int(n_labels.max()) + 1, dtype=torch.long, device=lens.device)
    for row, labels in zip(padded, sequences, strict=True):
        row[: len(labels)] = torch.tensor(labels, dtype=torch.long)
    states, covered = [t.state for t in terms], None
    totals = torch.zeros(len(sequences), device=lens.device)
    for n in range(padded.shape[1]):
        scores, going = sum_of_scores(terms, states), n <= n_labels
        label = torch.where(n < n_labels, padded[:, n], scores.shape[1] - 1)
        totals += scores.gather(1, label[:, None])[:, 0].masked_fill(~going, 0)
        if hasattr(terms[0].scorer, "attended"):
            attended = terms[0].scorer.attended(states[0]) * going[:, None]  # pyright: ignore
            covered = attended if covered is None else covered + attended
        if n + 1 < padded.shape[1]:
            states = [t.scorer.advance(s, padded[:, n]) for t, s in zip(terms, states, strict=True)]
    covered = None if covered is None else covered[:, None]
    return ranking(totals[:, None], n_labels[:, None], covered, lens)[:, 0].tolist()
