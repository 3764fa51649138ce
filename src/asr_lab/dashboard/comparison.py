"""Two runs side by side: what differs in their configurations, and in what they recognise."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from asr_lab.dashboard.answers import Kept
from asr_lab.dashboard.configs import FILE as CONFIG
from asr_lab.dashboard.configs import Configs
from asr_lab.dashboard.places import Places
from asr_lab.dashboard.utterances import Utterances
from asr_lab.report.configurations import MIN_SPEAKERS
from asr_lab.report.records import HYPS, Scores, read_scores
from asr_lab.report.stats import LEVEL, Interval, compare
from asr_lab.run import is_numbered

DRAWS = 4000  # fewer than the report's: other answers wait while these are counted


class Comparisons:
    """Pairs of runs; what took long is kept as long as the files stay the same."""

    def __init__(self, places: Places, utterances: Utterances, configs: Configs):
        self.places, self.utterances, self.configs = places, utterances, configs
        self._pairs: Kept[dict[str, Any]] = Kept(64)

    def mark(self, *runs: Path) -> Any:
        return [self.places.stamp(run / name) for run in runs for name in (CONFIG, HYPS, "result.json")]

    def pair(self, a: Path, b: Path, score: str) -> dict[str, Any]:
        """The whole page of two runs; `score` is "wer" or "cer"."""
        return self._pairs.get((a, b, score), self.mark(a, b), lambda: self._pair(a, b, score))

    def _pair(self, a: Path, b: Path, score: str) -> dict[str, Any]:
        (first, _, bad_a), (second, _, bad_b) = self.configs.read(a), self.configs.read(b)
        keys = [k for k in sorted(first.keys() | second.keys()) if first.get(k) != second.get(k)]
        notes = [f"{run.name}: {bad}" for run, bad in ((a, bad_a), (b, bad_b)) if bad]
        rates = self._rates(a, b, score, notes)
        changed = self.utterances.changed(a, b, "test", score) if rates else []
        return {
            "config": [[k, first.get(k), second.get(k), is_numbered(k)] for k in keys],
            "same": sum(k in second and first[k] == second[k] for k in first),
            "rates": rates,
            "score": score,
            "changed": changed,
            "notes": notes,
        }

    def _rates(self, a: Path, b: Path, score: str, notes: list[str]) -> dict[str, Any] | None:
        """Both rates and their paired difference with intervals, as in the report; None where they cannot be had."""
        scores = []
        for run in (a, b):
            damage: list[str] = []
            stamp = self.places.stamp(run / HYPS)
            found = read_scores(run / HYPS, damage) if stamp else None
            if found is None:
                notes.append(f"{run.name}: {damage[0] if damage else f'no {HYPS}: not scored yet'}")
            scores.append(found)
        if None in scores:
            return None
        first, second = scores
        if first.ids != second.ids or first.refs != second.refs:
            notes.append("scored on different test sets or references: their rates cannot be compared")
            return None
        counts = [s.counts(score) for s in scores]
        if None in counts:
            notes.append(f"no counts of {score} per utterance")
            return None
        (errors_a, total), (errors_b, _) = counts
        blocks = _blocks(first)
        found = compare([errors_a[None], errors_b[None]], total, blocks=blocks, n_resamples=DRAWS)
        best = 0 if found[0].best else 1
        delta = found[1].delta if best == 0 else Interval(*(-x for x in _turned(found[0].delta)))
        return {
            "a": _interval(found[0].rate),
            "b": _interval(found[1].rate),
            "delta": _interval(delta),  # b - a
            "tied": any(c.tied for c in found) or bool(np.array_equal(errors_a, errors_b)),
            "identical": bool(first.hyps == second.hyps),
            "level": LEVEL,
            "n": len(first.ids),
            "n_resamples": DRAWS,
            "unit": "utterances" if blocks is None else f"{len(set(blocks))} speakers",
            "errors": [s.edits.sum(0).tolist() for s in scores],  # substitutions, deletions, insertions in words
        }


def _turned(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.high, interval.low


def _blocks(scores: Scores) -> tuple[str, ...] | None:
    """What the report resamples: speakers where there are enough, else utterances."""
    speakers = scores.speakers
    return speakers if speakers is not None and len(set(speakers)) >= MIN_SPEAKERS else None


def _interval(found: Interval) -> list[float | None]:
    return [float(x) if math.isfinite(x) else None for x in found]
