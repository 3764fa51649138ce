"""Grammars of small vocabularies: what may be said, spelled in labels, and how probable one thing is after another."""

import math
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

NEVER = float("-inf")
GRAMMARS = ("loop", "bigram", "sentence", "free")


class Grammar(NamedTuple):
    """W entries (words, sentences or single labels). Weights are log-probabilities; -inf forbids."""

    spellings: list[list[int]]  # labels of each entry, no two alike
    join: list[int]  # labels between two entries
    start: Tensor  # (W,) weight of an entry at the beginning
    end: Tensor  # (W,) of the end after an entry
    before: Tensor  # (W, M) int64, the entries that an arc of its own leads from to each entry
    arcs: Tensor  # (W, M) weights of those arcs
    leave: Tensor  # (W,) of going on from an entry by no arc of its own, to any entry
    anyway: Tensor  # (W,) of an entry that is come to so

    def to(self, device: torch.device) -> "Grammar":
        moved = {k: t.to(device) for k, t in self._asdict().items() if isinstance(t, Tensor)}
        return self._replace(**moved)

    def weight(self, entries: list[int]) -> float:
        """The sequence's whole weight, the end included."""
        if not entries:
            return NEVER
        total = float(self.start[entries[0]] + self.end[entries[-1]])
        for u, v in pairwise(entries):
            own = self.arcs[v][self.before[v] == u]
            total += max([float(self.leave[u] + self.anyway[v]), *own.tolist()])
        return total


def make_grammar(kind: str, tokenizer: Any, train_texts: Iterable[str], penalty: float, discount: float) -> Grammar:
    """The grammar of a kind; `penalty` is taken off for each entry.

    - `loop`: any words of the transcripts in any order, with unigram probabilities;
    - `bigram`: the same with interpolated absolute discounting (Ney et al. 1994) by `discount`;
    - `sentence`: the transcripts themselves, as probable as they were frequent;
    - `free`: any labels, all alike.

    Raises:
        ValueError: an unknown kind, a value that cannot be, or labels that do not show where words end.
    """
    if kind not in GRAMMARS:
        raise ValueError(f"grammar={kind}; choose from: {', '.join(GRAMMARS)}")
    if not 0 < discount < 1:
        raise ValueError(f"discount lies between 0 and 1, {discount} came")
    if kind == "free":
        spellings, sentences, join = [[v] for v in range(len(tokenizer))], [], []
    elif kind == "sentence":
        spellings, sentences = _entries([[tuple(tokenizer.encode(t))] for t in train_texts if t])
        join = []
    else:
        texts = [t.split() for t in train_texts]
        join = _join(sorted({w for words in texts for w in words}), tokenizer)
        spelled = {w: tuple(tokenizer.encode(w)) for words in texts for w in words}
        spellings, sentences = _entries([[spelled[w] for w in words] for words in texts if words])
    if not spellings:
        raise ValueError(f"grammar={kind}: the training transcripts hold no word; choose grammar=free")
    return _weighted(kind, spellings, sentences, join, penalty, discount)


def _entries(sentences: list[list[tuple[int, ...]]]) -> tuple[list[list[int]], list[list[int]]]:
    """(the different spellings, sorted; sentences as their numbers): words spelled alike are one"""
    different = sorted({spelling for sentence in sentences for spelling in sentence})
    number = {spelling: i for i, spelling in enumerate(different)}
    return [list(s) for s in different], [[number[s] for s in sentence] for sentence in sentences]


def _join(words: list[str], tokenizer: Any) -> list[int]:
    """The labels that a tokenizer puts between words."""
    fault = "its labels do not show where a word ends; choose grammar=sentence or free, or another tokenizer"
    if not words:
        return []
    one = tokenizer.encode(words[0])
    try:
        two = tokenizer.encode(f"{words[0]} {words[0]}")
    except ValueError:
        raise ValueError(f"the tokenizer has no label between words, so {fault}") from None
    join = two[len(one) : len(two) - len(one)]
    if two != [*one, *join, *one] or len(tokenizer.decode(two).split()) != 2:
        raise ValueError(f"the tokenizer spells words differently beside others, or {fault}")
    return join


def _weighted(
    kind: str, spellings: list[list[int]], sentences: list[list[int]], join: list[int], penalty: float, discount: float
) -> Grammar:
    n = len(spellings)
    nothing = torch.full((n,), NEVER)
    none_before, no_arcs = torch.zeros(n, 0, dtype=torch.long), torch.zeros(n, 0)
    if kind == "free":
        alike = torch.full((n,), -penalty)
        return Grammar(spellings, join, alike, torch.zeros(n), none_before, no_arcs, torch.zeros(n), alike)
    counts = torch.bincount(torch.tensor([v for s in sentences for v in s]), minlength=n).double()
    if kind == "sentence":
        start = (counts / counts.sum()).log().float() - penalty
        return Grammar(spellings, join, start, torch.zeros(n), none_before, no_arcs, nothing, nothing)
    # The end of a sentence is one more word, that nothing follows and that no sentence begins with.
    total = float(counts.sum()) + len(sentences)
    unigram, p_end = counts / total, len(sentences) / total
    if kind == "loop":
        anyway = unigram.log().float() - penalty
        end = torch.full((n,), math.log(p_end))
        return Grammar(spellings, join, anyway - math.log1p(-p_end), end, none_before, no_arcs, torch.zeros(n), anyway)
    return _bigram(spellings, sentences, join, penalty, discount, unigram, p_end)


def _bigram(
    spellings: list[list[int]],
    sentences: list[list[int]],
    join: list[int],
    penalty: float,
    discount: float,
    unigram: Tensor,
    p_end: float,
) -> Grammar:
    """p(v|u) = (c(u,v) - d) / c(u) + d n(u) / c(u) p(v), n(u) the number of different words after u."""
    n = len(spellings)
    begin, end = n, n + 1
    pairs = Counter(
        pair for s in sentences for pair in zip([begin, *s], [*s, end], strict=True)
    )  # fmt: skip
    seen, kinds = Counter(), Counter()
    for (u, _), count in pairs.items():
        seen[u] += count
        kinds[u] += 1
    back = torch.tensor([discount * kinds[u] / seen[u] for u in range(n + 1)], dtype=torch.double)
    start, ends = back[begin] * unigram / (1 - p_end), back[:n] * p_end
    to: list[list[tuple[int, float]]] = [[] for _ in range(n)]
    for (u, v), count in sorted(pairs.items()):
        own = (count - discount) / seen[u]
        if v == end:
            ends[u] += own
        elif u == begin:
            start[v] += own
        else:
            to[v].append((u, math.log(own + float(back[u] * unigram[v])) - penalty))
    most = max(map(len, to))
    before, arcs = torch.zeros(n, most, dtype=torch.long), torch.full((n, most), NEVER)
    for v, row in enumerate(to):
        for m, (u, weight) in enumerate(row):
            before[v, m], arcs[v, m] = u, weight
    leave, anyway = back[:n].log().float(), unigram.log().float() - penalty
    return Grammar(spellings, join, start.log().float() - penalty, ends.log().float(), before, arcs, leave, anyway)
