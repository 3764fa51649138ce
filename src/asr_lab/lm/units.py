"""An n-gram model over labels, or over the words that the labels spell, as an automaton over the tokenizer's labels."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from asr_lab.lm.arpa import SPACE
from asr_lab.lm.automaton import Source
from asr_lab.lm.backoff import Floats, Ints, spread

_SPACES = (SPACE, "|", "▁")  # how models over characters write a space


class Model(Protocol):
    """An n-gram model: `Backoff`, or KenLM's. Words are ids, the places in `words`; states are whole numbers."""

    words: list[str]
    begin: int | None  # the ids of <s>, </s> and <unk>
    end: int
    unknown: int | None
    start: int  # the state after <s>
    empty: int  # the state of no context
    n_states: int | None

    def step(self, states: Ints, words: Ints) -> tuple[Floats, Ints]: ...
    def rows(self, states: Ints) -> tuple[Floats, Ints]: ...


def source(model: Model, tokenizer: Any, unit: str, unknown: str, unk_log_prob: float, uses_lookahead: bool) -> Source:
    """The automaton of a model over the units `label` or `word`.

    What the model does not know costs `unk_log_prob` (nats, a label or a word) with unknown=open, and is impossible
    with unknown=closed.

    Raises:
        ValueError: a value is wrong, or model and tokenizer do not fit.
    """
    if unit not in ("label", "word"):
        raise ValueError(f"unit={unit}; choose from: label, word")
    if unknown not in ("open", "closed"):
        raise ValueError(f"unknown={unknown}; choose from: open, closed")
    if not -np.inf < unk_log_prob < 0:
        raise ValueError(f"unk_log_prob is a log-probability, below 0; {unk_log_prob} came (unknown=closed forbids)")
    price = unk_log_prob if unknown == "open" else -np.inf
    return (
        Labels(model, tokenizer.symbols, price) if unit == "label" else Words(model, tokenizer, price, uses_lookahead)
    )


def named(symbol: str) -> str:
    """A label as a word of a model, where words hold no space."""
    return SPACE if symbol == " " else symbol


class Labels:
    """Every label is a word of the model."""

    def __init__(self, model: Model, symbols: list[str], price: float):
        ids = {word: i for i, word in enumerate(model.words)}
        space = next((ids[s] for s in _SPACES if s in ids and s not in symbols), -1)
        own = [space if symbol == " " else ids.get(symbol, -1) for symbol in symbols]
        extra = [model.words[i] for i in sorted(set(ids.values()) - {*own, model.begin, model.end, model.unknown})]
        if extra:
            raise ValueError(
                f"{len(extra)} of the language model's {len(ids)} words are no label of the tokenizer ('{extra[0]}'); "
                "take a model over this tokenizer's labels, or unit=word for one over words"
            )
        self.model, self.n_labels, self.price = model, len(symbols), price
        self.start, self.n_states = model.start, model.n_states
        self._columns, self._strange = np.array(own), np.array([i < 0 for i in own])
        self._after_strange = _after_unknown(model)

    def rows(self, states: Ints) -> tuple[Floats, Ints]:
        log_probs, after = self.model.rows(states)
        scores = log_probs[:, [*self._columns, self.model.end]]
        after = after[:, self._columns]
        scores[:, :-1][:, self._strange] = self.price
        after[:, self._strange] = self._after_strange
        return scores, after


class Words:
    """The labels spell words, which the model knows; a word is paid when the label comes that ends it.

    A state is a state of the model and a node of the tree of the vocabulary's spellings (the last node: no word begins
    like this). With look-ahead (Ortmanns et al. 1997), the highest unigram probability among the words that can still
    come is paid at each label, and corrected when the word is known: sums over sentences are the same, but hypotheses
    of unlikely words fall behind early. Words that sound alike share a node; the likeliest one counts.
    """

    def __init__(self, model: Model, tokenizer: Any, price: float, uses_lookahead: bool):
        self.model, self.n_labels, self.price = model, len(tokenizer), price
        spelling = _Spelling(tokenizer)
        special = {model.begin, model.end, model.unknown}
        words = [(i, way) for i, w in enumerate(model.words) if i not in special for way in spelling.of_word(w)]
        if not words:
            raise ValueError(
                f"none of the language model's {len(model.words)} words can be written with the tokenizer's labels "
                f"('{model.words[min(len(model.words) - 1, 5)]}'); its words must look as transcripts do"
            )
        ids = np.array([i for i, _ in words])
        unigrams = model.step(np.full(len(ids), model.empty), ids)[0]
        self._tree = _Tree([way for _, way in words], ids, unigrams)
        self._n = self._tree.n_nodes
        self._rest, self._ends_word = spelling.rest, spelling.begins_word
        self._fresh = self._tree.walk(np.zeros(1, np.int64), self._rest)[0]  # node after each label, as a word's first
        # What has been paid at each node: of an unknown word all, as it cannot become known again.
        self._paid = np.maximum(self._tree.best, price) if uses_lookahead else np.zeros(self._n)
        self._paid[0], self._paid[-1] = 0, price
        self._after_unknown = _after_unknown(model)
        self.start = model.start * self._n
        self.n_states = None if model.n_states is None else model.n_states * self._n

    def rows(self, states: Ints) -> tuple[Floats, Ints]:
        contexts, nodes = np.divmod(states, self._n)
        price, later = self._end_word(contexts, nodes)
        to = np.where(self._ends_word, self._fresh, self._tree.walk(nodes, self._rest))
        ended = np.where(self._ends_word, price[:, None], 0) + self._paid[to]
        end = price + self.model.step(later, np.full(len(later), self.model.end))[0]
        paid = np.where(np.isfinite(self._paid[nodes]), self._paid[nodes], 0)
        scores = np.concatenate([ended, end[:, None]], axis=1) - paid[:, None]
        return scores, np.where(self._ends_word, later[:, None], contexts[:, None]) * self._n + to

    def _end_word(self, contexts: Ints, nodes: Ints) -> tuple[Floats, Ints]:
        """(K,), (K,) -> the price of the word that ends at each node, and the state after it; free where none began"""
        begun = nodes > 0
        price, after = np.where(begun, self.price, 0.0), np.where(begun, self._after_unknown, contexts)
        row, word = self._tree.words_at(nodes)
        log_probs, states = self.model.step(contexts[row], word)
        by_row = np.lexsort((log_probs, row))
        best = by_row[np.flatnonzero(np.diff(row, append=-1))]  # the last of a row is its likeliest
        price[row[best]], after[row[best]] = log_probs[best], states[best]
        return price, after


def _after_unknown(model: Model) -> int:
    if model.unknown is None:
        return model.empty
    return int(model.step(np.array([model.empty]), np.array([model.unknown]))[1][0])


class _Spelling:
    """What each label adds to a text: whether it ends the word before it, and the symbols that follow."""

    def __init__(self, tokenizer: Any):
        self._lexicon = getattr(tokenizer, "lexicon", None)
        if self._lexicon is None:
            pieces = [_added(tokenizer, label) for label in range(len(tokenizer))]
        else:  # of phones: the label that no pronunciation has stands between words
            phones = {phone for ways in self._lexicon.values() for way in ways for phone in way}
            pieces = [(s,) if s in phones else (" ",) for s in tokenizer.symbols]
        self.begins_word = np.array([piece[:1] in (" ", (" ",)) for piece in pieces])
        rest = [piece.lstrip(" ") if isinstance(piece, str) else piece if piece != (" ",) else () for piece in pieces]
        if not self.begins_word.any():
            raise ValueError("no label of the tokenizer holds a space, so nothing ends a word; use unit=label")
        if inside := next((symbol for symbol, r in zip(tokenizer.symbols, rest, strict=True) if " " in r), None):
            raise ValueError(f"the tokenizer's label '{inside}' goes over the end of a word; use unit=label")
        self._ids = {s: i for i, s in enumerate(sorted({s for r in rest for s in r}))}
        self.rest = np.full((len(rest), max(map(len, rest))), -1)
        for row, symbols in zip(self.rest, rest, strict=True):
            row[: len(symbols)] = [self._ids[s] for s in symbols]

    def of_word(self, word: str) -> list[list[int]]:
        """Its spellings, or pronunciations; none if the labels cannot write it"""
        ways: Iterable[Sequence[str]] = [word] if self._lexicon is None else self._lexicon.get(word, [])
        return [[self._ids[s] for s in way] for way in ways if all(s in self._ids for s in way)]


def _added(tokenizer: Any, label: int) -> str:
    """The text that a label adds to what is there, whatever the tokenizer does at the beginning of a text."""
    return tokenizer.decode([label, label])[len(tokenizer.decode([label])) :]


class _Tree:
    """The vocabulary by its spellings: node 0 is the beginning of words, the last node is where no word goes on."""

    def __init__(self, ways: list[list[int]], words: Ints, log_probs: Floats):
        n_symbols = 1 + max(max(way) for way in ways)
        index: dict[int, int] = {}
        best, ends = [-np.inf], []
        for way, log_prob in zip(ways, log_probs.tolist(), strict=True):
            node = 0
            for symbol in way:
                node = index.setdefault(node * n_symbols + symbol, len(best))
                if node == len(best):
                    best.append(-np.inf)
                best[node] = max(best[node], log_prob)
            ends.append(node)
        self.best = np.array([*best, -np.inf])  # log-probability of the likeliest word below each node
        self.n_nodes = len(self.best)
        self._n_symbols = n_symbols
        self._keys = np.array(sorted(index))
        self._children = np.array([index[key] for key in self._keys.tolist()])
        by_node = np.argsort(ends, kind="stable")
        self._words = words[by_node]
        self._first = np.searchsorted(np.array(ends)[by_node], np.arange(self.n_nodes + 1))

    def walk(self, nodes: Ints, symbols: Ints) -> Ints:
        """(K,), (V, n) symbols padded with -1 -> (K, V): the nodes that they lead to"""
        to = np.repeat(nodes, len(symbols))
        todo = np.arange(len(to))
        for column in symbols.T:
            symbol = column[todo % len(symbols)]
            todo, symbol = todo[symbol >= 0], symbol[symbol >= 0]
            keys = to[todo] * self._n_symbols + symbol
            place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            inside = self._keys[place] == keys
            to[todo] = np.where(inside, self._children[place], self.n_nodes - 1)
            todo = todo[inside]
        return to.reshape(len(nodes), len(symbols))

    def words_at(self, nodes: Ints) -> tuple[Ints, Ints]:
        """(K,) -> the words that end at these nodes: the place of each one's node, and the word"""
        row, place = spread(self._first[nodes], self._first[nodes + 1])
        return row, self._words[place]
