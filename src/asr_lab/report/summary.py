"""From configurations to conclusions: the one-sentence answer, what to beware of, what did not work."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from asr_lab.report.collect import SCORES, Cell, Experiment
from asr_lab.report.configurations import (
    Configuration,
    apart,
    cell_rate,
    configurations,
    scored_sets,
    swept_factors,
)
from asr_lab.report.factors import analysis
from asr_lab.report.failures import WAITING, Failure, failures, standing
from asr_lab.report.formats import between, level, percent
from asr_lab.report.power import Power, power
from asr_lab.report.stats import LEVEL, N_RESAMPLES, Factorial
from asr_lab.report.variations import between_seeds

SEED = 0
ONE_SEED = "one seed: the interval covers utterances only"


@dataclass(frozen=True)
class Summary:
    """Everything the pages show, computed once."""

    experiment: Experiment
    swept: tuple[str, ...]  # factors that make a configuration
    fixed: dict[str, str]  # factors that every cell shares
    configurations: tuple[Configuration, ...]  # finished ones by the score on the test set, then the others
    unplanned: tuple[Cell, ...]  # runs found in the folder that the plan does not know
    answer: str
    warnings: tuple[str, ...]
    standing: str  # what is still to come; "" when every planned cell is over
    failures: tuple[Failure, ...]
    resampled: str  # what was resampled and why
    by_speaker: bool  # whether that was speakers
    power: Power | None
    factorial: Factorial | None
    unanalysed: tuple[str, ...]  # factors that the factorial analysis leaves out
    level: float = LEVEL
    n_resamples: int = N_RESAMPLES
    resample_seed: int = SEED

    @property
    def score(self) -> str:
        """ "wer" or "cer": what ranks the configurations."""
        return self.experiment.score

    @property
    def waits(self) -> bool:
        """Whether planned cells are still to come."""
        return any(c.status in WAITING for r in self.configurations for c in r.cells)

    @property
    def best(self) -> Configuration | None:
        return next((c for c in self.configurations if c.best), None)

    @property
    def best_cell(self) -> Cell | None:
        """The best configuration's best seed: whose hypotheses are worth reading."""
        return min(self.best.done, key=lambda c: cell_rate(c, self.score)) if self.best else None


def summarise(experiment: Experiment) -> Summary:
    """Group the planned cells, compare the configurations and say what came out."""
    planned = [c for c in experiment.cells if c.planned]
    rows = configurations(experiment, N_RESAMPLES, LEVEL, SEED)
    swept = swept_factors(experiment)
    keys = dict.fromkeys(k for c in planned for k in c.factors)
    values = {k: {c.factors.get(k) for c in planned} for k in keys}  # None where a cell has no such key
    fixed = {
        k: v
        for k in sorted(keys)
        if len(values[k]) == 1 and k not in {*swept, "seed"}
        for v in values[k]
        if v is not None
    }
    sets = scored_sets(planned)
    able = power(rows, sets[0] if sets else None, experiment.score) if experiment.score in SCORES else None
    factors, left_out = analysis(planned, swept, experiment.score) if experiment.score in SCORES else (None, [])
    return Summary(
        experiment=experiment,
        swept=tuple(swept),
        fixed=fixed,
        configurations=tuple(rows),
        unplanned=tuple(c for c in experiment.cells if not c.planned),
        answer=_answer(rows, experiment.score.upper(), able),
        warnings=tuple(_warnings(rows, experiment.score)),
        standing=standing(experiment),
        failures=tuple(failures(experiment)),
        resampled=sets[0].note if sets else "nothing (no finished cell has usable counts per utterance)",
        by_speaker=bool(sets) and sets[0].blocks is not None,
        power=able,
        factorial=factors,
        unanalysed=tuple(left_out),
    )


def _answer(rows: list[Configuration], rate: str, able: Power | None) -> str:
    """The result in one sentence, computed from the comparison alone."""
    best = next((r for r in rows if r.best), None)
    if best is None:
        first = next((r for r in rows if r.done), None)
        if first is None or math.isnan(first.rate.value):
            return f"No planned cell has a test {rate} yet."
        return (
            f"{first.label} has the lowest test {rate}, {percent(first.rate.value)} %, but without counts per "
            "utterance nothing says how sure that is."
        )
    n = len(best.done)
    how = f"mean of {n} seeds" if n > 1 else ONE_SEED
    sure = "no interval" if math.isnan(best.rate.low) else f"{level(LEVEL)} interval {between(best.rate)} %"
    text = f"Best configuration: {best.label}, with {percent(best.rate.value)} % test {rate} ({sure}; {how})"
    others = [r for r in rows if r.comparable and not r.best]
    tied = [r.short for r in others if r.tied]
    worse = len(others) - len(tied)
    if not others:
        return text + "; no other configuration can be compared with it."
    text += f", the lowest of {len(others) + 1}"
    if not worse:
        text += ", but no other configuration can be told apart from it"
    else:
        if tied:
            listed = f"{', '.join(tied[:4])}{f' and {len(tied) - 4} more' if len(tied) > 4 else ''}"
            text += f"; {len(tied)} {'is' if len(tied) == 1 else 'are'} tied with it ({listed}), and"
        else:
            text += ";"
        text += " the other one is worse" if worse == 1 else f" the other {worse} are worse"
    if able and math.isfinite(able.detectable) and able.detectable > 0.0005:  # else it reads 0.0
        return text + f"; true differences under {percent(able.detectable)} points would mostly go unnoticed here."
    return text + "."


def _warnings(rows: list[Configuration], score: str) -> Iterable[str]:
    """What a careful reader would ask about before believing the table."""
    done = [c for r in rows for c in r.done]
    yield from _different(done, "scores", lambda c: c.score, f"{score} (that of most) ranks them all")
    yield from _different(done, "test data", lambda c: c.digest.get("test"), "their error rates cannot be compared")
    yield from _different(done, "training data", lambda c: c.digest.get("train"), "the data is a factor too")
    yield from _different(done, "commits", lambda c: c.git.get("commit"), "the code is a factor too")
    yield from _not_compared(rows)
    dirty = [c.name for c in done if c.git.get("dirty") == "true"]
    if dirty:
        yield f"{_few(dirty)} ran with uncommitted changes: the commit does not tell the code."
    off = [c.name for c in done if abs((rate := cell_rate(c, score)) - c.metrics.get(f"test/{score}", rate)) > 1e-4]
    if off:
        yield f"{_few(off)}: test/{score} in result.json is not the one counted from the hypotheses, which is shown."
    yield from _different(
        done,
        "machines",
        lambda c: ", ".join(c.environment[k] for k in ("host", "device", "cpu") if k in c.environment),
        "their times and memory are not comparable",
    )
    yield from _identical(rows)
    for label, keys in between_seeds(rows):
        yield f"Seeds of {label} differ in more than their seed ({', '.join(keys[:4])}): they are no repeats."
    twice = [r.label for r in rows if len({c.seed for c in r.done}) < len(r.done)]
    if twice:
        yield f"The same seed more than once in: {'; '.join(twice)}. Repeats are not new evidence."
    single = [r for r in rows if len(r.done) == 1]
    if single and len(single) == sum(bool(r.done) for r in rows):
        yield f"{ONE_SEED.capitalize()}; another seed may order the configurations differently."
    elif single:
        yield f"{ONE_SEED.capitalize()}, for: {'; '.join(r.label for r in single)}."


def _not_compared(rows: list[Configuration]) -> Iterable[str]:
    """One line for each reason why configurations are not compared with the best."""
    sets = scored_sets(c for r in rows for c in r.done)
    reasons: dict[str, list[str]] = {}
    for row in rows if sets and any(r.best for r in rows) else ():
        if row.done and not row.comparable:
            why = next(filter(None, (apart(c, sets[0]) for c in row.done)), "its counts are incomplete")
            reasons.setdefault(why, []).append(row.label)
    for why, labels in reasons.items():
        yield f"Not compared with the best: {'; '.join(labels)}. The reason: {why}."


def _identical(rows: list[Configuration]) -> Iterable[str]:
    """Runs of one seed that recognised the very same: what they differ in had no effect, or one is a copy."""
    groups: dict[tuple, list[str]] = {}
    for row in rows:
        for cell in row.done:
            if cell.scores and cell.scores.errors.any():
                groups.setdefault((cell.seed, cell.scores.hyps), []).append(row.short)
    same = [names for names in groups.values() if len(set(names)) > 1]
    if same:
        listed = "; ".join(" = ".join(dict.fromkeys(names)) for names in same[:3])
        more = f"; and {len(same) - 3} more" if len(same) > 3 else ""
        yield f"Runs of one seed with exactly the same hypotheses: {listed}{more}. What they differ in had no effect."


def _different(cells: list[Cell], what: str, read, so: str) -> Iterable[str]:
    """One warning when finished cells differ in something that should be the same everywhere."""
    groups: dict[str, list[str]] = {}
    for cell in cells:
        if read(cell):
            groups.setdefault(read(cell), []).append(cell.name)
    if len(groups) > 1:
        parts = "; ".join(
            f"{value[:12] if what == 'commits' else value[:60]}: {_few(names)}" for value, names in groups.items()
        )
        yield f"Cells ran with different {what}, so {so} ({parts})."


def _few(names: list[str]) -> str:
    shown = [n if len(n) <= 40 else f"{n[:24]}…{n[-12:]}" for n in names[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
