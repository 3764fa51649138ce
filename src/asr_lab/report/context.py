"""Everything that report.html and report.md show, made once."""

import math
from collections.abc import Sequence
from typing import Any

from asr_lab.report import cost, curves, norms
from asr_lab.report.collect import Cell
from asr_lab.report.configurations import cell_rate
from asr_lab.report.formats import HEADINGS, level
from asr_lab.report.heat_maps import heat_maps
from asr_lab.report.responses import response_figures, responses
from asr_lab.report.stats import Effect, Factorial, error_rate
from asr_lab.report.stats.factorial import SEED
from asr_lab.report.summary import Summary
from asr_lab.report.svg import key
from asr_lab.report.svg_bars import interval_chart
from asr_lab.report.variations import variations
from asr_lab.report.words import align, units
from asr_lab.report.worst import most_frequent, with_recordings, worst

CHARTED = 20  # configurations in the chart of intervals; the table has all


def context(summary: Summary, audio: int = 0) -> dict[str, Any]:
    """
    Raises:
        DataError: recordings of `audio` utterances are wanted, and the corpus is not here.
    """
    experiment, score = summary.experiment, summary.score
    rows, rate = [r for r in summary.configurations if r.done], score.upper()
    headings = {
        k: (heading.format(score=rate), show, why.format(score=rate)) for k, (heading, show, why) in HEADINGS.items()
    }
    histories, norms_left = norms.histories(experiment.folder, summary.configurations)
    examples = worst(summary.best_cell, score)
    if audio and summary.best_cell:
        examples = with_recordings(
            worst(summary.best_cell, score, max(audio, len(examples))), summary.best_cell.config, audio
        )
    return {
        "s": summary,
        "e": experiment,
        "rows": summary.configurations,
        "rate": rate,
        "other": "CER" if score == "wer" else "WER",
        "units": "words" if score == "wer" else "characters",
        "columns": {k: v for k, v in headings.items() if any(math.isfinite(r.columns[k].mean) for r in rows)},
        "keys": [key(i) for i in range(len(rows))],  # finished rows come first
        "intervals": interval_chart(
            [(r.short, r.rate, [cell_rate(c, score) for c in r.done]) for r in rows[:CHARTED]],
            f"Test {rate} of {len(rows[:CHARTED])} configurations with {level(summary.level)} intervals",
        ),
        "uncharted": max(0, len(rows) - CHARTED),
        "effects": effects(summary.factorial),
        "spread": between_seeds(summary.factorial),
        "maps": heat_maps(summary.configurations, summary.swept, experiment.cells),
        "responses": [f for r in responses(rows, summary.swept) for f in response_figures(r, rate)],
        "curves": curves.figures(rows, summary.swept, rate),
        "norms": norms.panels(histories),
        "histories": histories,
        "norms_left": norms_left,
        "costs": [(c, cost.chart(c, rate)) for c in cost.costs(rows)],
        "worst": examples,
        "audio": any(u.clip for u in examples),
        "confusions": most_frequent(summary.best, score),
        "variations": variations(experiment.cells, summary.swept),
        "environment": environment([c for r in rows for c in r.done]),
    }


def between_seeds(found: Factorial | None) -> float:
    """Standard deviation of the rate between seeds of one configuration (a share); nan where it is not known."""
    error = [t for t in found.terms if t.name == "seeds"] if found and not found.ranks else []
    return math.sqrt(error[0].sum_squares / error[0].df) if error else math.nan


def effects(found: Factorial | None) -> list[tuple[str, list[Effect]]]:
    """(factor, its levels from the lowest mean to the highest), the seed left out: its levels are only names."""
    by_factor = found.effects.items() if found else ()
    return [(k, sorted(of, key=lambda e: (math.isnan(e.mean.value), e.mean.value))) for k, of in by_factor if k != SEED]


def environment(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """Every recorded fact of where and from what the finished cells ran, with all its values."""
    facts: dict[str, dict[str, None]] = {}
    for cell in cells:
        for k, v in [*cell.environment.items(), *((f"git {k}", v) for k, v in cell.git.items())]:
            facts.setdefault(k, {})[v] = None
    return {k: list(v) for k, v in facts.items()}


def kinds(cell: Cell, score: str) -> list[float]:
    """Substitutions, deletions and insertions, each over the reference words (or characters)."""
    s, counts = cell.scores, cell.scores.counts(score) if cell.scores else None
    if s is None or counts is None:
        return []
    if score == "wer":
        return [float(error_rate(kind, s.words)) for kind in s.edits.T]
    pairs = zip(s.refs, s.hyps, strict=True)
    marks = [p.mark for r, h in pairs if r != h for p in align(units(r, score), units(h, score))]
    return [float(error_rate([marks.count(kind)], [counts[1].sum()])) for kind in "SDI"]
