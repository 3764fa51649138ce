"""Several hypotheses of one utterance under its reference: one column a word, whoever said it."""

from collections.abc import Sequence
from typing import NamedTuple

from asr_lab.report.words import Pair, align, units


class Column(NamedTuple):
    """One place of the alignment; "" where there is no word."""

    ref: str
    hyps: tuple[str, ...]
    marks: tuple[str, ...]  # of each hypothesis: "" right (or nothing here), "S", "D" or "I"


class _Said(NamedTuple):
    """One hypothesis seen from its reference of L words."""

    inserted: list[list[str]]  # L + 1: before each word, and at the end
    at: list[Pair]  # L


def side_by_side(ref: str, hyps: Sequence[str], score: str = "wer") -> list[Column]:
    """The alignments of each hypothesis with the reference, merged: words for wer, characters for cer.

    Insertions at the same place share columns, in their order; they are not aligned with each other.
    """
    words = units(" ".join(ref.split()), score).split()
    said = [_said(words, units(" ".join(hyp.split()), score)) for hyp in hyps]
    columns = []
    for i in range(len(words) + 1):
        for n in range(max(len(s.inserted[i]) for s in said)):
            extra = tuple(s.inserted[i][n] if n < len(s.inserted[i]) else "" for s in said)
            columns.append(Column("", extra, tuple("I" if word else "" for word in extra)))
        if i < len(words):
            columns.append(Column(words[i], tuple(s.at[i].hyp for s in said), tuple(s.at[i].mark for s in said)))
    return columns


def _said(words: list[str], hyp: str) -> _Said:
    if hyp.split() == words:
        return _Said([[] for _ in range(len(words) + 1)], [Pair("", word, word) for word in words])
    found = _Said([[]], [])
    for pair in align(" ".join(words), hyp):
        if pair.mark == "I":
            found.inserted[-1].append(pair.hyp)
        else:
            found.at.append(pair)
            found.inserted.append([])
    return found
