"""Runs or configurations beside each other: rates, differences and their tests, what differs, what it costs."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from asr_lab.errors import RunError, nearest
from asr_lab.report import circumstances, stats
from asr_lab.report.changes import changes
from asr_lab.report.compared import COST, Compared, Entry, Paired
from asr_lab.report.configurations import MIN_SPEAKERS, Spread
from asr_lab.report.differences import ABSENT, confounds, guessed_factor
from asr_lab.report.matching import Replicate, matched
from asr_lab.report.pair_tests import pair_tests
from asr_lab.report.records import Scores, as_numbers, as_object
from asr_lab.report.same_test import check_same_test
from asr_lab.report.sides import Member, Side
from asr_lab.report.stats import N_RESAMPLES, Array, Interval, TestResult
from asr_lab.report.stats.compare import p_value
from asr_lab.report.words import align, units
from asr_lab.run import is_numbered

SCORES = ("wer", "cer")
BOOTSTRAP = "paired bootstrap"  # the test whose p is corrected and shown; it is of both seeds and utterances
_NONE = Interval(math.nan, math.nan, math.nan)


def compare(
    sides: Sequence[Side], split: str, score: str | None = None, factor: str | None = None, tests: bool = False
) -> Compared:
    """
    Args:
        score: wer or cer; None: that of the first run.
        factor: what is meant to differ; None: guessed from the configurations.
        tests: also make the tests that need their time.

    Raises:
        RunError: the runs were not scored alike, or there is no such score or factor.
    """
    check_same_test(sides, split)
    runs = matched(sides)
    first = sides[0].members[0]
    score = _score(score, first, runs.replicates)
    blocks, resampled = _blocks(first.scores)
    entries = tuple(_entries(sides, runs.replicates, score, blocks))
    errors = [_errors(r, score) for r in runs.replicates]
    pairs = _pairs(entries, errors, score, blocks, tests)
    values = circumstances.by_side([[m.flat for m in e.members] for e in entries], ABSENT)
    differing = {k: v for k, v in values.items() if k != "seed" and is_numbered(k) and k not in runs.over}
    chosen = circumstances.by_side([[m.factors for m in e.members] for e in entries], ABSENT)
    choices = {k: v for k, v in chosen.items() if k != "seed" and k not in runs.over}
    named = _factor(factor, sides) if factor else guessed_factor(differing, choices)
    return Compared(
        split=split,
        score=score,
        n_utterances=len(first.scores.ids),
        n_units=int(_counts(first, score)[1].sum()),
        resampled=resampled,
        entries=entries,
        pairs=pairs,
        factor=named,
        factor_guessed=factor is None,
        differing=differing,
        choices=choices,
        over=runs.over,
        confounds=tuple(confounds(differing, named)) if named or len(differing) > 1 else (),
        warnings=tuple(_warnings(entries, score)),
        notes=(*(n for s in sides for n in s.notes), *runs.notes, *_notes(entries, pairs)),
        changes=tuple(changes(entries, errors, score)),
    )


def _score(wanted: str | None, first: Member, replicates: Sequence[Sequence[Replicate]]) -> str:
    score = wanted or (first.run.score if first.run.score in SCORES else "wer")
    if score not in SCORES:
        raise RunError(f"there is no score '{score}'{nearest(score, SCORES)}")
    for m in (m for side in replicates for r in side for m in r):
        if m.scores.counts(score) is None:
            raise RunError(f"{m.run.folder}: no {score.upper()}: its hypotheses have no counts of characters")
    return score


def _factor(wanted: str, sides: Sequence[Side]) -> str:
    known = {k for s in sides for m in s.members for k in m.factors}
    keys = {k for s in sides for m in s.members for k in m.flat}
    if wanted in known | keys or any(k.startswith(wanted.replace("/", ".") + ".") for k in keys):
        return wanted
    raise RunError(f"--factor: the runs have no '{wanted}'{nearest(wanted, known)}")


def _counts(m: Member, score: str) -> tuple[Array, Array]:
    found = m.scores.counts(score)
    assert found is not None, "checked by _score"
    return found[0].astype(float), found[1].astype(float)


def _errors(replicates: Sequence[Replicate], score: str) -> Array:
    """(S, N) edits of each seed, a mean over what the seed's runs vary."""
    return np.stack([np.mean([_counts(m, score)[0] for m in r], axis=0) for r in replicates])


def _blocks(scores: Scores) -> tuple[tuple[str, ...] | None, str]:
    n = len(set(scores.speakers or ()))
    if n < MIN_SPEAKERS:
        return None, f"{len(scores.ids)} utterances"
    return scores.speakers, f"{n} speakers"


def _entries(
    sides: Sequence[Side], replicates: Sequence[Sequence[Replicate]], score: str, blocks: Sequence[str] | None
) -> Iterator[Entry]:
    members = [tuple(m for r in side for m in r) for side in replicates]
    rates: dict[str, list[Interval]] = {}
    for kind in SCORES:
        if any(m.scores.counts(kind) is None for side in members for m in side):
            rates[kind] = [_NONE] * len(sides)
            continue
        _, n = _counts(members[0][0], kind)
        rates[kind] = [c.rate for c in stats.compare([_errors(r, kind) for r in replicates], n, blocks=blocks)]
    for i, side in enumerate(sides):
        numbers = [_numbers(m) for m in members[i]]
        cost = {k: _spread([n[k] for n in numbers if k in n]) for k in COST}
        kinds = tuple(np.mean([_kinds(m, score) for m in members[i]], axis=0))
        yield Entry(side, members[i], len(replicates[i]), {k: v[i] for k, v in rates.items()}, kinds, cost)


def _numbers(m: Member) -> dict[str, float]:
    numbers = as_numbers(m.result)
    for part in ("encoder", "seconds"):
        numbers |= {f"{part}/{k}": v for k, v in as_numbers(as_object(m.result.get(part))).items()}
    return {k: v for k, v in numbers.items() if math.isfinite(v)}


def _spread(values: Sequence[float]) -> Spread:
    return Spread(sum(values) / len(values), min(values), max(values)) if values else Spread(*_NONE)


def _kinds(m: Member, score: str) -> Array:
    """(3,) substitutions, deletions and insertions over the reference's units."""
    n = _counts(m, score)[1].sum()
    if not n:
        return np.full(3, np.nan)
    if score == "wer":
        return m.scores.edits.sum(0) / n
    texts = ((r, h) for r, h in zip(m.scores.refs, m.scores.hyps, strict=True) if r != h)
    marks = Counter(p.mark for r, h in texts for p in align(units(r, score), units(h, score)))
    return np.array([marks[kind] for kind in "SDI"]) / n


def _pairs(
    entries: Sequence[Entry], errors: Sequence[Array], score: str, blocks: Sequence[str] | None, tests: bool
) -> tuple[Paired, ...]:
    n = _counts(entries[0].members[0], score)[1]
    levels = stats.Levels(errors, n, blocks, N_RESAMPLES, seed=0)
    found = []
    for i, j in combinations(range(len(entries)), 2):
        pair = _pair(levels, (entries[i], i), (entries[j], j), errors[j].mean(0) - errors[i].mean(0))
        if not math.isnan(pair.p):
            pair = pair._replace(needed=stats.needed(errors[j], errors[i], n, blocks=blocks))
        if tests:
            more, skipped = pair_tests((errors[j], errors[i]), n, (entries[j].members, entries[i].members), score)
            more.insert(0, stats.permutation(errors[j], errors[i], n, blocks=blocks))
            pair = pair._replace(tests=pair.tests | {t.test: t for t in more}, skipped=skipped)
        found.append(pair)
    corrected = stats.holm([pair.p for pair in found])
    return tuple(pair._replace(p_holm=float(p)) for pair, p in zip(found, corrected, strict=True))


def _pair(levels: stats.Levels, first: tuple[Entry, int], second: tuple[Entry, int], change: Array) -> Paired:
    """Two sides with their places in `levels`; `change` (N,) of the edits from the first to the second."""
    (a, i), (b, j) = first, second
    value, resampled = float(levels.values[j] - levels.values[i]), levels.difference(j, i)
    p = p_value(value, resampled)
    said = [{m.scores.hyps for m in side.members} for side in (a, b)]
    return Paired(
        a=a.side.letter,
        b=b.side.letter,
        delta=stats.interval(value, resampled),
        p=p,
        p_holm=math.nan,
        tests={BOOTSTRAP: TestResult(BOOTSTRAP, value, p, levels.n)},
        skipped={},
        needed=None,
        fewer=int((change < 0).sum()),
        more=int((change > 0).sum()),
        identical=said[0] == said[1] and len(said[0]) == 1,
    )


def _warnings(entries: Sequence[Entry], score: str) -> Iterator[str]:
    if len({m.run.score for e in entries for m in e.members}) > 1:
        yield f"their checkpoints were not all chosen by the same score; {score.upper()} compares them here"
    changed = [m.run.name for e in entries for m in e.members if m.result.get("fingerprint") != m.run.fingerprint]
    if changed:
        more = f" and of {len(changed) - 1} more" if len(changed) > 1 else ""
        yield f"config.yaml of {changed[0]}{more} is not the one that it ran with"
    yield from circumstances.warnings({e.side.letter: e.members for e in entries})


def _notes(entries: Sequence[Entry], pairs: Sequence[Paired]) -> Iterator[str]:
    single = [e.side.letter for e in entries if e.n_seeds == 1]
    if single:
        yield f"one seed only ({', '.join(single)}): no seed interval, the intervals cover utterances only"
    for pair in pairs:
        if pair.identical:
            yield f"{pair.a} and {pair.b} are identical: every word of every hypothesis is the same"
