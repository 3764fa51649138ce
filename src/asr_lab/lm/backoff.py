"""Back-off n-gram models as arrays: a tree of contexts that is, at once, a deterministic automaton over words."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Grams(NamedTuple):
    """All n-grams of one order n, natural logarithms."""

    words: NDArray[np.integer]  # (M, n) word ids
    log_probs: Floats  # (M,) of the last word after the others
    backoffs: Floats  # (M,) weight of the n-gram as a context; 0 for the highest order


class BadGram(ValueError):
    """The n-gram in row `row` of order `order` cannot be part of a model."""

    def __init__(self, order: int, row: int, why: str):
        super().__init__(f"{order}-gram {row}: {why}")
        self.order, self.row, self.why = order, row, why


class Backoff:
    """log p(w|h) is that of the longest n-gram hw that the model has, plus the back-off weights of the contexts that
    were too long (Katz 1987).

    An n-gram is a node of a tree, numbered breadth first, siblings by their word; node 0 is the empty context. A state
    is the node of the longest context that can still matter. Every word is a unigram: row i of the first order is word
    i of `words`.

    Raises:
        BadGram: an n-gram comes twice, or without the shorter one it begins with.
    """

    empty = 0

    def __init__(self, words: list[str], begin: int, end: int, unknown: int | None, grams: list[Grams]):
        self.words, self.end, self.unknown = words, end, unknown
        self.begin: int | None = begin
        self.order, self._n = len(grams), len(words)
        # Node i has the i-th smallest key, parent * n_words + word: searching a key finds a child.
        self._keys = np.full(1, -1, dtype=np.int64)
        self._suffix, self.log_probs, self.backoffs = np.zeros(1, np.int64), np.zeros(1), np.zeros(1)
        self._starts = [0, 1]  # first node of each order, from 0
        for order, level in enumerate(grams, 1):
            self._append(order, level)
        # Of each node that can be a context, where its children begin.
        n_states = self._starts[self.order]
        self.n_states: int | None = n_states
        self._first = np.searchsorted(self._keys, np.arange(n_states + 1) * self._n)
        self._target = self._targets()
        self.start = int(self._target[self._child(np.zeros(1, np.int64), np.array([begin]))[0]])

    def _append(self, order: int, level: Grams) -> None:
        parents = np.zeros(len(level.words), np.int64)
        for column in level.words.T[:-1]:
            parents = np.where(parents < 0, -1, self._child(parents, column))
        if (parents < 0).any():
            raise BadGram(order, int(np.argmax(parents < 0)), f"its first {order - 1} words are no {order - 1}-gram")
        keys = parents * self._n + level.words[:, -1]
        by_key = np.argsort(keys, kind="stable")
        keys = keys[by_key]
        if (same := keys[1:] == keys[:-1]).any():
            raise BadGram(order, int(by_key[np.argmax(same) + 1]), "it was there before")
        if order == 1:
            suffix = np.zeros(len(keys), np.int64)
        else:
            suffix = self.find(self._suffix[keys // self._n], keys % self._n)[0]
        self._keys = np.concatenate([self._keys, keys])
        self._suffix = np.concatenate([self._suffix, suffix])
        self.log_probs = np.concatenate([self.log_probs, level.log_probs[by_key]])
        self.backoffs = np.concatenate([self.backoffs, level.backoffs[by_key]])
        self._starts.append(len(self._keys))

    def _targets(self) -> Ints:
        """The state in which each node leaves the automaton: itself, or the longest suffix that matters."""
        matters = np.zeros(len(self._keys), bool)
        n_children = np.diff(self._first)
        matters[: len(n_children)] = (n_children > 0) | (self.backoffs[: len(n_children)] != 0)
        matters[0] = True
        target = np.arange(len(self._keys))
        for begin, end in zip(self._starts[1:], self._starts[2:], strict=False):
            nodes = slice(begin, end)
            target[nodes] = np.where(matters[nodes], target[nodes], target[self._suffix[nodes]])
        return target

    def _child(self, nodes: Ints, words: NDArray[np.integer]) -> Ints:
        """The node of each n-gram followed by a word; -1 where the model has none"""
        keys = nodes * self._n + words
        place = np.searchsorted(self._keys, keys)
        place[place == len(self._keys)] = 0
        return np.where(self._keys[place] == keys, place, -1)

    def find(self, states: Ints, words: NDArray[np.integer]) -> tuple[Ints, Floats]:
        """(M,), (M,) -> the longest n-gram of the model that ends in each word (its node), and the sum of the back-off
        weights on the way to it."""
        nodes, weights = states.copy(), np.zeros(len(states))
        found = self._child(nodes, words)
        todo = np.flatnonzero(found < 0)
        while todo.size:
            weights[todo] += self.backoffs[nodes[todo]]
            nodes[todo] = self._suffix[nodes[todo]]
            found[todo] = self._child(nodes[todo], words[todo])
            todo = todo[found[todo] < 0]
        return found, weights

    def step(self, states: Ints, words: NDArray[np.integer]) -> tuple[Floats, Ints]:
        """(M,), (M,) -> log p(word | state) in nats, and the states after the words"""
        found, weights = self.find(states, words)
        return weights + self.log_probs[found], self._target[found]

    def rows(self, states: Ints) -> tuple[Floats, Ints]:
        """(K,) -> log p(word | state) and the state after it, of every word: (K, n_words) each"""
        unigrams = slice(1, 1 + self._n)
        log_probs = np.repeat(self.log_probs[None, unigrams], len(states), axis=0)
        after = np.repeat(self._target[None, unigrams], len(states), axis=0)
        chain = [states]
        while chain[-1].any():
            chain.append(self._suffix[chain[-1]])
        for nodes in reversed(chain[:-1]):  # the shortest contexts first: longer ones overrule
            log_probs += self.backoffs[nodes][:, None]
            inside = np.flatnonzero(nodes)
            row, child = spread(self._first[nodes[inside]], self._first[nodes[inside] + 1])
            place = (inside[row], self._keys[child] % self._n)
            log_probs[place], after[place] = self.log_probs[child], self._target[child]
        return log_probs, after

    def order_of(self, nodes: Ints) -> Ints:
        return np.searchsorted(self._starts, nodes, side="right") - 1

    def grams(self, order: int) -> Grams:
        """The n-grams of one order; each order follows that of the contexts."""
        nodes = np.arange(self._starts[order], self._starts[order + 1])
        columns, parents = [], nodes
        for _ in range(order):
            columns.append(self._keys[parents] % self._n)
            parents = self._keys[parents] // self._n
        return Grams(np.stack(columns[::-1], axis=1), self.log_probs[nodes], self.backoffs[nodes])


def spread(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """(R,), (R,) -> the ranges first..last-1 one after the other: the range of each item, and the item"""
    lens = last - first
    row = np.repeat(np.arange(len(lens)), lens)
    return row, np.arange(len(row)) + np.repeat(first - np.cumsum(lens) + lens, lens)
