"""What a comparison found: values only, and their form as JSON."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from asr_lab.report.configurations import Spread
from asr_lab.report.sides import Member, Side
from asr_lab.report.stats import LEVEL, Interval, Needed, TestResult

KINDS = ("substitutions", "deletions", "insertions")
# What is read of result.json beside the rates.
COST = (
    "parameters",
    "encoder/macs_per_audio_second",
    "seconds/train",
    "audio_seconds_per_second",
    "peak_memory_mb",
)


class Entry(NamedTuple):
    """One side, measured. Rates are shares."""

    side: Side
    members: tuple[Member, ...]  # those that are compared
    n_seeds: int
    rates: dict[str, Interval]  # by "wer" and "cer"; nan where a run has no such counts
    kinds: tuple[float, ...]  # substitutions, deletions, insertions over reference units of the score
    cost: dict[str, Spread]  # by `COST`


class Change(NamedTuple):
    """An utterance of which sides make different numbers of errors."""

    id: str
    speaker: str
    ref: str
    hyps: tuple[str, ...]  # of each side: of the run that is nearest to the mean of all its runs
    errors: tuple[float, ...]  # of each side: edits, a mean over its runs
    change: float  # of the side that is furthest from the first


class Paired(NamedTuple):
    """Two sides on the same utterances."""

    a: str
    b: str
    delta: Interval  # the score of b minus that of a
    p: float  # of the paired bootstrap
    p_holm: float  # the same, corrected for the number of pairs
    tests: dict[str, TestResult]
    skipped: dict[str, str]  # tests that cannot be made, and why
    needed: Needed | None  # to separate the two, were the difference what it seems
    fewer: int  # utterances with fewer errors in b
    more: int
    identical: bool  # every word of every run the same


@dataclass(frozen=True)
class Compared:
    """Everything that `asr-lab compare` shows."""

    split: str
    score: str
    n_utterances: int
    n_units: int  # reference words, or characters
    resampled: str  # what the intervals draw again
    entries: tuple[Entry, ...]
    pairs: tuple[Paired, ...]  # all of them
    factor: str | None
    factor_guessed: bool
    differing: dict[str, tuple[str, ...]]  # keys of the configuration, and their values on each side
    choices: dict[str, tuple[str, ...]]  # the same of what was chosen: encoder=gru
    over: dict[str, list[str]]  # what both vary alike: the comparison is a mean over it
    confounds: tuple[str, ...]  # those of `differing` that are not the factor's
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    changes: tuple[Change, ...]  # the most changed first

    def pair(self, a: str, b: str) -> Paired:
        """The pair of two letters, in alphabetical order."""
        return next(pair for pair in self.pairs if (pair.a, pair.b) == (a, b))

    def as_json(self, top: int) -> dict[str, Any]:
        """Plain values with stable keys; rates are shares, a missing number is None. `top`: so many utterances."""
        letters = [e.side.letter for e in self.entries]
        return {
            "split": self.split,
            "score": self.score,
            "utterances": self.n_utterances,
            "units": self.n_units,
            "resampled": self.resampled,
            "level": LEVEL,
            "sides": {e.side.letter: _entry(e) for e in self.entries},
            "pairs": [_pair(pair) for pair in self.pairs],
            "factor": {"name": self.factor, "guessed": self.factor_guessed},
            "differences": {k: dict(zip(letters, v, strict=True)) for k, v in self.differing.items()},
            "choices": {k: dict(zip(letters, v, strict=True)) for k, v in self.choices.items()},
            "mean_over": self.over,
            "confounds": list(self.confounds),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "changed": [_change(c, letters) for c in self.changes[:top]],
        }


def _entry(e: Entry) -> dict[str, Any]:
    return {
        "name": e.side.name,
        "runs": [str(m.run.folder) for m in e.members],
        "seeds": e.n_seeds,
        **{kind: _interval(rate) for kind, rate in e.rates.items()},
        **{name: _number(value) for name, value in zip(KINDS, e.kinds, strict=True)},
        "cost": {
            k: {"mean": _number(v.mean), "min": _number(v.low), "max": _number(v.high)} for k, v in e.cost.items()
        },
    }


def _pair(pair: Paired) -> dict[str, Any]:
    return {
        "a": pair.a,
        "b": pair.b,
        "delta": _interval(pair.delta),
        "p": _number(pair.p),
        "p_holm": _number(pair.p_holm),
        "tests": {k: {"statistic": _number(t.statistic), "p": _number(t.p), "n": t.n} for k, t in pair.tests.items()},
        "skipped": pair.skipped,
        "needed": _needed(pair.needed),
        "fewer_errors": pair.fewer,
        "more_errors": pair.more,
        "identical": pair.identical,
    }


def _needed(needed: Needed | None) -> dict[str, Any] | None:
    """None for a number that no seeds or utterances reach."""
    if needed is None:
        return None
    found = {"detectable": needed.detectable, "seeds": needed.n_seeds, "utterances": needed.n_utterances}
    return {k: _number(v) for k, v in found.items()} | {"seeds_known": needed.seeds_known}


def _change(c: Change, letters: list[str]) -> dict[str, Any]:
    sides = [{"hyp": hyp, "errors": errors} for hyp, errors in zip(c.hyps, c.errors, strict=True)]
    return {"id": c.id, "speaker": c.speaker, "ref": c.ref, "sides": dict(zip(letters, sides, strict=True))}


def _interval(x: Interval) -> dict[str, float | None]:
    return {"value": _number(x.value), "low": _number(x.low), "high": _number(x.high)}


def _number(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None
