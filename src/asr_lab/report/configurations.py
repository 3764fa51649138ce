"""From cells to configurations, compared.

A configuration is one choice of every swept factor except the seed; its cells differ only in their seed.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from asr_lab.gradients.advice import role
from asr_lab.report.collect import SCORES, Cell, Experiment
from asr_lab.report.stats import Comparison, Interval, compare, error_rate

MIN_SPEAKERS = 10  # fewer blocks than this say little about their spread
NOTHING = "–"  # a choice has no such key, or there is no number
_NONE = Interval(math.nan, math.nan, math.nan)


class Spread(NamedTuple):
    """Mean and range over the finished seeds, in the unit of the value; nan where nothing was recorded."""

    mean: float
    low: float
    high: float


# What the main table shows next to the error rates, or of language models, each read from one cell. A key "val"
# stands for val/<score>.
COLUMNS: dict[str, Callable[[Cell], float]] = {
    "train/clipped": lambda c: c.metrics.get("train/clipped", math.nan),
    "gradients/kept": lambda c: c.numbers.get("gradients/kept", math.nan),
    "parameters": lambda c: c.numbers.get("parameters", math.nan),
    "encoder/macs_per_audio_second": lambda c: c.numbers.get("encoder/macs_per_audio_second", math.nan),
    "seconds/train": lambda c: c.numbers.get("seconds/train", math.nan),
    "audio_seconds_per_second": lambda c: c.numbers.get("audio_seconds_per_second", math.nan),
    "peak_memory_mb": lambda c: c.numbers.get("peak_memory_mb", math.nan),
    "test/ppl": lambda c: c.metrics.get("test/ppl", math.nan),
    "test/ppl_word": lambda c: c.metrics.get("test/ppl_word", math.nan),
}


@dataclass(frozen=True)
class Configuration:
    """One row of the main table."""

    factors: dict[str, str]  # swept ones, without the seed
    cells: tuple[Cell, ...]  # whatever their status
    score: str  # "wer" or "cer": which of the two rates ranks it
    wer: Interval  # on the test set, mean over the finished seeds; ends are nan where no interval can be made
    cer: Interval
    delta: Interval  # the score minus that of the best configuration; nan where the two cannot be compared
    best: bool
    tied: bool  # with the best, all configurations taken together
    p: float  # of being as good as the best, corrected for all of them; nan where it is not compared
    columns: dict[str, Spread]  # keys of COLUMNS, and "val": the score on the validation set

    @property
    def rate(self) -> Interval:
        """The one of `wer` and `cer` that is the score."""
        return self.wer if self.score == "wer" else self.cer

    @property
    def other(self) -> Interval:
        """The one that is not."""
        return self.cer if self.score == "wer" else self.wer

    @property
    def done(self) -> list[Cell]:
        return [c for c in self.cells if c.done]

    @property
    def clipping_was(self) -> str:
        """What the choice of clipping did in training, a role of asr_lab.gradients.advice; "" without one."""
        share, off = self.columns["train/clipped"].mean, all(c.factors.get("clipping") == "none" for c in self.cells)
        return "" if off or math.isnan(share) else role(share)

    @property
    def gaps(self) -> list[str]:
        """Why cells have no result: `seeds 1, 2 missing: never started`, one line per status and reason."""
        seeds: dict[str, list[str]] = {}
        for c in self.cells:
            if not c.done:
                seeds.setdefault(c.status + (f": {c.reason}" if c.reason else ""), []).append(c.seed or "?")
        return [f"seed{'s' * (len(s) > 1)} {', '.join(s)} {why}" for why, s in seeds.items()]

    @property
    def comparable(self) -> bool:
        """Scored, utterance by utterance, on the same test set as the best."""
        return not math.isnan(self.delta.value)

    @property
    def label(self) -> str:
        """Complete: `encoder=conformer, clipping=norm`."""
        return ", ".join(f"{k}={v}" for k, v in self.factors.items() if v != NOTHING) or "the only configuration"

    @property
    def short(self) -> str:
        """For a chart: `conformer · norm`."""
        return " · ".join(v for v in self.factors.values() if v != NOTHING) or "all seeds"


class ScoredSet(NamedTuple):
    """Cells scored on the same utterances of the same data."""

    key: tuple
    cell: Cell  # any of them
    blocks: tuple[str, ...] | None  # what to resample: the speaker of each utterance, or None for utterances
    note: str  # the same in words, with the reason


def cell_rate(cell: Cell, score: str) -> float:
    """Test WER or CER (a share) from the counts of the hypotheses, or else the run's own number."""
    counts = cell.scores.counts(score) if cell.scores else None
    return float(error_rate(*counts)) if counts else cell.metrics.get(f"test/{score}", math.nan)


def _best_val(cell: Cell, score: str) -> float:
    return cell.best.get(f"val/{score}", cell.metrics.get(f"val/{score}", math.nan))


def swept_factors(experiment: Experiment) -> list[str]:
    """Factors that differ between planned cells, in the order of the plan's axes, then of the cells; never the seed.

    A choice inside a group (`encoder/subsampling`) that follows from the group's own choice is no factor beside it.
    """
    cells = [c for c in experiment.cells if c.planned]
    keys = dict.fromkeys([*experiment.axes, *(k for c in cells for k in c.factors)])
    return [
        k for k in keys if k != "seed" and _differs(k, cells) and not (_follows(k, cells) and k not in experiment.axes)
    ]


def _differs(key: str, cells: list[Cell]) -> bool:
    """Whether cells have it with several values, or some with and some without among those of one choice of its group
    (whose configuration nobody could read)."""
    having = [c for c in cells if key in c.factors]
    if len({c.factors[key] for c in having}) > 1:
        return True
    group, inside, _ = key.partition(".")
    without = {c.factors.get(group) for c in cells if key not in c.factors}
    return bool(inside) and not without.isdisjoint(c.factors.get(group) for c in having)


def _follows(key: str, cells: list[Cell]) -> bool:
    """Whether each choice of a group comes with one choice of the group inside it (or of the search, for a decoder)."""
    group, inside, _ = ("decoder", "/", "") if key == "decoding" else key.partition("/")
    pairs = {(c.factors.get(group), c.factors.get(key)) for c in cells}
    return bool(inside) and len(pairs) == len({outer for outer, _ in pairs})


def scored_sets(cells: Iterable[Cell]) -> list[ScoredSet]:
    """The distinct test sets of the finished cells, the most common first."""
    scored = [c for c in cells if c.done and c.scores is not None]
    counts = Counter(map(_key, scored)).most_common()
    return [ScoredSet(key, c := next(c for c in scored if _key(c) == key), *_blocks(c)) for key, _ in counts]


def configurations(experiment: Experiment, n_resamples: int, level: float, seed: int) -> list[Configuration]:
    """The planned cells by configuration: finished ones by their test rate, then the others in the plan's order."""
    cells = [c for c in experiment.cells if c.planned]
    swept = swept_factors(experiment)
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell.factors.get(k, NOTHING) for k in swept), []).append(cell)
    score = experiment.score
    rows = [_plain(dict(zip(swept, values, strict=True)), group, score) for values, group in groups.items()]
    for number, on in enumerate(scored_sets(cells)):
        same = [i for i, row in enumerate(rows) if row.done and all(_key(c) == on.key for c in row.done)]
        options = {"blocks": on.blocks, "n_resamples": n_resamples, "level": level, "seed": seed}
        for kind in SCORES:
            for i, found in zip(same, _compare([rows[i] for i in same], kind, **options), strict=False):
                rows[i] = replace(rows[i], **{kind: found.rate})
                if kind == score and number == 0:  # the most common test set names the best; others are only shown
                    rows[i] = replace(rows[i], delta=found.delta, best=found.best, tied=found.tied, p=found.p_adjusted)
    return sorted(rows, key=lambda r: (not r.done, math.isnan(r.rate.value), r.rate.value))


def _compare(rows: list[Configuration], score: str, **options) -> list[Comparison]:
    """`compare` on words or characters of cells that share a test set; nothing where an older layout has no counts."""
    counts = [[pair for c in row.done if c.scores and (pair := c.scores.counts(score))] for row in rows]
    if any(len(pairs) < len(row.done) for pairs, row in zip(counts, rows, strict=True)):
        return []
    return compare([np.stack([edits for edits, _ in pairs]) for pairs in counts], counts[0][0][1], **options)


def _plain(factors: dict[str, str], group: list[Cell], score: str) -> Configuration:
    """What can be said without counts per utterance: means and ranges, no interval."""
    done = [c for c in group if c.done]
    wer, cer = _spread(cell_rate(c, "wer") for c in done), _spread(cell_rate(c, "cer") for c in done)
    spreads = {name: _spread(map(read, done)) for name, read in COLUMNS.items()}
    return Configuration(
        factors=factors,
        cells=tuple(group),
        score=score,
        wer=_NONE._replace(value=wer.mean),
        cer=_NONE._replace(value=cer.mean),
        delta=_NONE,
        best=False,
        tied=False,
        p=math.nan,
        columns={"val": _spread(_best_val(c, score) for c in done), **spreads},
    )


def _key(cell: Cell) -> tuple:
    """Equal for cells scored on the same test set: same data, same utterances, same references (which another
    normaliser changes)."""
    s = cell.scores
    if s is None:
        return ()
    return cell.digest.get("test"), s.ids, s.refs, s.words.tobytes(), None if s.chars is None else s.chars.tobytes()


def apart(cell: Cell, from_set: ScoredSet) -> str:
    """Why a finished cell was not scored on the same test set as those of `from_set`; "" when it was."""
    mine, theirs = cell.scores, from_set.cell.scores
    if mine is None or theirs is None:
        return "its counts per utterance are missing"
    if _key(cell) == from_set.key:
        return ""
    normalizers = [c.factors.get("data/normalizer") for c in (cell, from_set.cell)]
    named = f"; data/normalizer {normalizers[0]} and {normalizers[1]}" if normalizers[0] != normalizers[1] else ""
    if cell.digest.get("test") != from_set.cell.digest.get("test"):
        named += "; digests of the test data differ"
    return f"another test set ({mine.unlike(theirs) or 'its characters were counted otherwise'}{named})"


def _blocks(cell: Cell) -> tuple[tuple[str, ...] | None, str]:
    assert cell.scores is not None
    n, speakers = len(cell.scores.ids), cell.scores.speakers
    if speakers is None:
        return None, f"the {n} test utterances (not every one names its speaker)"
    n_speakers = len(set(speakers))
    if n_speakers < MIN_SPEAKERS:
        return None, f"the {n} test utterances (of {n_speakers} speaker(s), too few to resample speakers)"
    return speakers, f"the {n_speakers} speakers of the {n} test utterances"


def _spread(values: Iterable[float]) -> Spread:
    """Over the finite values; a seed that recorded nothing does not count."""
    finite = [v for v in values if math.isfinite(v)]
    return Spread(sum(finite) / len(finite), min(finite), max(finite)) if finite else Spread(*_NONE)
