"""Words out of labels, and where they lie: for any tokenizer, through its `decode` alone."""

from collections.abc import Sequence
from typing import NamedTuple

from asr_lab.text.tokenizer import Tokenizer


class Word(NamedTuple):
    """A word and its place; `start` and `end` are in the unit of the frames that were given."""

    text: str
    start: int  # of its first label
    end: int  # of its last label, not included
    first: int  # index of its first label
    last: int  # index after its last label


def words_of(
    tokenizer: Tokenizer, labels: Sequence[int], starts: Sequence[int], ends: Sequence[int] | None = None
) -> list[Word]:
    """The words that `tokenizer.decode(labels)` writes, in order.

    Args:
        starts: frame (L,) at which each label begins, or is said.
        ends: frame (L,) at which it has ended, not included; None: each label lasts one frame.

    A label that stands for nothing but a space or a boundary belongs to no word. A label that holds several words (a
    subword over a space) gives all of them its own frames.
    """
    if len(labels) != len(starts) or (ends is not None and len(ends) != len(starts)):
        raise ValueError(f"{len(labels)} labels and {len(starts)} frames: one frame a label is wanted")
    stops = [start + 1 for start in starts] if ends is None else ends
    words: list[Word] = []
    begin, last = 0, 0  # of the word that is being written: its first label, and the one after its last
    for i in range(len(labels)):
        if not tokenizer.decode(labels[i : i + 1]).strip():
            continue
        before, now = (tokenizer.decode(labels[begin:n]).split() for n in (last, i + 1))
        new = len(now) - len(before)
        if new == 0:  # the word goes on
            last = i + 1
            words[-1] = Word(now[-1], words[-1].start, stops[i], words[-1].first, last)
            continue
        if before and now[len(before) - 1] != before[-1]:  # this label ends a word and begins another
            words[-1] = words[-1]._replace(text=now[len(before) - 1], end=stops[i], last=i + 1)
        words += [Word(text, starts[i], stops[i], i, i + 1) for text in now[-new:]]
        begin, last = i, i + 1
    return words
