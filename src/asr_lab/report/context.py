"""Everything that report.html and report.md show, made once."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from asr_lab.report import cost, curves, norms
from asr_lab.report.collect import Cell
from asr_lab.report.configurations import Configuration, cell_rate
from asr_lab.report.figures import Figure, of_lines
from asr_lab.report.formats import HEADINGS, level, percent, short
from asr_lab.report.heat_maps import heat_maps
from asr_lab.report.responses import response_figures, responses
from asr_lab.report.stats import Effect, Factorial, error_rate
from asr_lab.report.stats.factorial import SEED
from asr_lab.report.summary import Summary
from asr_lab.report.svg import key
from asr_lab.report.svg_bars import interval_chart
from asr_lab.report.svg_lines import Line, line_chart
from asr_lab.report.variations import variations
from asr_lab.report.words import align, units
from asr_lab.report.worst import most_frequent, with_recordings, worst

CHARTED = 20  # configurations in the chart of intervals; the table has all
CURVES = 7  # in one chart of learning curves: more are a tangle
FACETS = 6  # charts of learning curves


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
        "curves": learning_curves(rows, summary.swept, rate),
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


def learning_curves(rows: Sequence[Configuration], swept: Sequence[str], rate: str) -> list[Figure]:
    """The score on the validation set by epoch, for each encoder (or other first factor) apart where there are many
    configurations; by seconds, and the training loss, of the first ones. None of what was not recorded."""
    first = next((k for k in swept if k == "encoder"), *swept[:1]) if swept else ""
    facets = list(dict.fromkeys(r.factors[first] for r in rows)) if first else []
    numbered = list(enumerate(rows))
    parts = {"": numbered}
    if len(rows) > CURVES and 1 < len(facets) <= FACETS:
        parts = {name: [(i, r) for i, r in numbered if r.factors[first] == name] for name in facets}
    score = {"times": 100.0, "top": 1.0}
    found = []
    for name, part in parts.items():
        where = f" ({name})" if name else ""
        title = f"Validation {rate} against epoch{where}"
        found.append(_curves(part, curves.by_epoch, title, "epoch", f"val {rate} %{where}", name, **score))
    seconds = "seconds of training"
    found.append(
        _curves(numbered, curves.by_seconds, f"Validation {rate} against {seconds}", seconds, f"val {rate} %", **score)
    )
    loss = {"times": 1.0, "top": math.inf}
    found.append(_curves(numbered, curves.loss, "Training loss against epoch", "epoch", "training loss", **loss))
    return [figure for figure in found if figure]


def _curves(
    rows: Sequence[tuple[int, Configuration]],
    make: Callable[[Configuration], Line | None],
    title: str,
    x_label: str,
    y_label: str,
    facet: str = "",
    **scale: float,
) -> Figure:
    """Of the first `CURVES` that have one, in the styles that their places in the ranking give."""
    having = [(i, line) for i, row in rows if (line := make(row))]
    if facet:
        having = [(i, line._replace(label=line.label.removeprefix(f"{facet} · "))) for i, line in having]
    lines, numbers = [line for _, line in having[:CURVES]], [i for i, _ in having[:CURVES]]
    svg = line_chart(lines, title, x_label, y_label, numbers=numbers, **scale)
    show = percent if scale["times"] == 100 else "{:.3g}".format
    more = len(having) - len(lines)
    note = f"{more} more with a higher test rate {'is' if more == 1 else 'are'} not drawn." if more else ""
    return of_lines(title, svg, lines, x_label, show, short)._replace(note=note)


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
