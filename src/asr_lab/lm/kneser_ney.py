"""Interpolated modified Kneser-Ney smoothing (Chen & Goodman 1999), with the conventions of KenLM (Heafield et al.
2013): the unigrams are interpolated with a uniform distribution, of which `<unk>` has its share."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr_lab.lm.backoff import Backoff, Floats, Grams, Ints

log = logging.getLogger(__name__)

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
# Where counts of counts give no discounts, as with small or artificial text: those of lmplz --discount_fallback.
FALLBACK = (0.5, 1.0, 1.5)
_CHUNK = 2_000_000  # words counted at once


class Discounts(NamedTuple):
    """What is taken off counts of 1, of 2, and of 3 and more."""

    values: tuple[float, float, float]
    fallback: bool  # the counts of counts allowed none


class _Counts(NamedTuple):
    """The n-grams of one order in lexicographic order, those that begin with more than one `<s>` included."""

    grams: Ints  # (M, n)
    times: Ints  # (M,) how often each is there
    adjusted: Ints  # (M,) what Kneser-Ney counts: words before it; `times` in the highest order and after `<s>`
    suffix: Ints  # (M,) row of the n-gram without its first word, in the order below


def estimate(
    sentences: Iterable[Sequence[int]], words: list[str], order: int, min_counts: list[int], has_unknown: bool
) -> tuple[Backoff, list[Discounts]]:
    """A model of sentences of ids in 0..len(words)-1, and the discounts of each order.

    Every word of `words` has a probability, also one that no sentence has. `min_counts` says for each order how often
    an n-gram must be there to be kept (the last value is for all higher orders); what is dropped goes to the back-off.

    Raises:
        ValueError: a value is wrong, a word is a special one, or there is no sentence.
    """
    least = _checked(words, order, min_counts, has_unknown)
    names = [*words, END, BEGIN, *([UNKNOWN] if has_unknown else [])]
    end, begin = len(words), len(words) + 1
    tables = _tables(sentences, order, end, begin)
    discounts = [_discounts(table, begin) for table in tables]
    if poor := [str(n) for n, d in enumerate(discounts, 1) if d.fallback]:
        log.info("n-grams of order %s: no discounts from their counts; %s, %s, %s are used", ", ".join(poor), *FALLBACK)
    off = [np.array([0.0, *d.values]) for d in discounts]

    # Unigrams: every word has its share of what the discounts leave, except <s>, which is never predicted.
    counts = np.zeros(len(names))
    counts[tables[0].grams[:, 0]] = tables[0].adjusted
    discount = off[0][np.minimum(counts, 3).astype(int)]
    probs = (counts - discount + discount.sum() / (len(names) - 1)) / counts.sum()
    probs[begin] = 0
    with np.errstate(divide="ignore"):
        levels = [Grams(np.arange(len(names))[:, None], np.log(probs), np.zeros(len(names)))]
    lower = probs[tables[0].grams[:, 0]]
    for n, table in enumerate(tables[1:], 2):
        last, before = table.grams[:, -1], table.grams[:, :-1]
        context = np.zeros(len(last), np.int64)
        context[1:] = (before[1:] != before[:-1]).any(axis=1).cumsum()
        kept = table.times >= least[n - 1]
        mass = np.where(kept, table.adjusted - off[n - 1][np.minimum(table.adjusted, 3)], 0)
        total = np.bincount(context, table.adjusted)
        share = np.bincount(context, table.adjusted - mass) / total  # of the order below
        lower = mass / total[context] + share[context] * lower[table.suffix]
        _give_backoffs(levels[-1], tables[n - 2], before[np.r_[True, np.diff(context) > 0]], share, begin, end)
        levels.append(Grams(table.grams, np.log(lower), np.zeros(len(last))))
    kept = [_kept(g, t, m, begin) for g, t, m in zip(levels[1:], tables[1:], least[1:], strict=True)]
    unknown = len(names) - 1 if has_unknown else None
    return Backoff(names, begin, end, unknown, [levels[0], *kept]), discounts


def _checked(words: list[str], order: int, min_counts: list[int], has_unknown: bool) -> list[int]:
    """`min_counts` for every order."""
    if order < 1:
        raise ValueError(f"order must be 1 or more, {order} came")
    given = min_counts if isinstance(min_counts, list) else []
    if not given or given[0] != 1 or given != sorted(given) or len(given) > order:
        raise ValueError(
            f"min_counts is a list of up to {order} counts, from 1 and never becoming smaller; {min_counts} came"
        )
    if taken := sorted({BEGIN, END, *([UNKNOWN] if has_unknown else [])} & set(words)):
        raise ValueError(f"the text holds '{taken[0]}', which is a special word of language models; take it out")
    return given + given[-1:] * (order - len(given))


def _tables(sentences: Iterable[Sequence[int]], order: int, end: int, begin: int) -> list[_Counts]:
    grams, times = _count(sentences, order, end, begin)
    tables, adjusted = [], times
    while grams.shape[1] > 1:
        shorter, suffix = distinct(grams[:, 1:], begin + 1)
        tables.append(_Counts(grams, times, adjusted, suffix))
        times = np.bincount(suffix, times).astype(np.int64)
        adjusted = np.where(shorter[:, 0] == begin, times, np.bincount(suffix))
        grams = shorter
    tables.append(_Counts(grams, times, adjusted, np.zeros(len(grams), np.int64)))
    return tables[::-1]


def _count(sentences: Iterable[Sequence[int]], order: int, end: int, begin: int) -> tuple[Ints, Ints]:
    """The n-grams of one order, with as many `<s>` before a sentence as the first word needs, and their counts."""
    found = [_distinct_windows(chunk, order, begin) for chunk in _chunks(sentences, [begin] * (order - 1), end)]
    if not found:
        raise ValueError("there is no text to estimate a language model from")
    grams, place = distinct(np.concatenate([grams for grams, _ in found]), begin + 1)
    return grams, np.bincount(place, np.concatenate([times for _, times in found])).astype(np.int64)


def _chunks(sentences: Iterable[Sequence[int]], before: list[int], end: int) -> Iterator[list[int]]:
    chunk: list[int] = []
    for sentence in sentences:
        chunk += before
        chunk += sentence
        chunk.append(end)
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _distinct_windows(words: list[int], order: int, begin: int) -> tuple[Ints, Ints]:
    windows = np.lib.stride_tricks.sliding_window_view(np.array(words, dtype=np.int64), order)
    grams, place = distinct(windows[windows[:, -1] != begin], begin + 1)
    return grams, np.bincount(place)


def distinct(rows: NDArray[np.int64], n_values: int) -> tuple[Ints, Ints]:
    """(M, n) with values in 0..n_values-1 -> the different rows in lexicographic order, and the place (M,) of each"""
    key, n_keys = np.zeros(len(rows), np.int64), 1
    for column in rows.T:
        if n_keys * n_values >= 2**62:
            different, key = np.unique(key, return_inverse=True)
            n_keys = len(different)
        key, n_keys = key * n_values + column, n_keys * n_values
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    return rows[first], place


def _discounts(table: _Counts, begin: int) -> Discounts:
    """Equation 26 of Chen & Goodman (1999)."""
    own = table.adjusted if table.grams.shape[1] == 1 else table.adjusted[table.grams[:, 1] != begin]
    n1, n2, n3, n4 = (int((own == k).sum()) for k in (1, 2, 3, 4))
    if min(n1, n2, n3) > 0:
        y = n1 / (n1 + 2 * n2)
        values = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if min(values) > 0:
            return Discounts(values, fallback=False)
    return Discounts(FALLBACK, fallback=True)


def _give_backoffs(level: Grams, table: _Counts, contexts: Ints, share: Floats, begin: int, end: int) -> None:
    """Set the back-off weights of an order from the shares that its contexts leave."""
    weights = np.log(share)
    if contexts.shape[1] == 1:
        level.backoffs[contexts[:, 0]] = weights
    else:  # what does not end a sentence goes on, so these are the same n-grams in the same order
        level.backoffs[table.grams[:, -1] != end] = weights[contexts[:, -1] != begin]


def _kept(level: Grams, table: _Counts, least: int, begin: int) -> Grams:
    """Without the n-grams that are too rare, and those that only stand for shorter ones at the beginning."""
    kept = (table.times >= least) & (level.words[:, 1] != begin)
    return Grams(level.words[kept], level.log_probs[kept], level.backoffs[kept])
