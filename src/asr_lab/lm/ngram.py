"""N-gram language models: estimated from the training transcripts, or read from an ARPA file."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asr_lab.lm.arpa import read_arpa
from asr_lab.lm.automaton import Automaton
from asr_lab.lm.backoff import Backoff
from asr_lab.lm.kneser_ney import UNKNOWN, Discounts, estimate
from asr_lab.lm.units import named, source

_AT_ONCE = 10_000  # sentences


def label_ngram(
    tokenizer: Any, train_texts: Iterable[str], order: int, min_counts: list[int], cache_mb: float
) -> Automaton:
    """Over the tokenizer's labels; every label has a probability, also one that no training text has.

    Raises:
        ValueError: a value is wrong, or there is no text.
    """
    model, _ = of_labels(tokenizer, train_texts, order, min_counts, has_unknown=False)
    # Nothing is unknown, so what that would cost does not matter.
    return Automaton(source(model, tokenizer, "label", "closed", -1.0, uses_lookahead=False), cache_mb)


def word_ngram(
    tokenizer: Any,
    train_texts: Iterable[str],
    order: int,
    min_counts: list[int],
    unknown: str,
    unk_log_prob: float,
    lookahead: bool,
    cache_mb: float,
) -> Automaton:
    """Over the words of the training texts, which the labels spell; see `asr_lab.lm.units.source` for the values.

    Raises:
        ValueError: a value is wrong, or there is no text.
    """
    model, _ = of_words(train_texts, order, min_counts)
    return Automaton(source(model, tokenizer, "word", unknown, unk_log_prob, lookahead), cache_mb)


def arpa(
    tokenizer: Any, file: str, unit: str, unknown: str, unk_log_prob: float, lookahead: bool, cache_mb: float
) -> Automaton:
    """A model from an ARPA file, plain or gzipped, over labels or words.

    Raises:
        DataError: the file is not what it should be.
        ValueError: a value is wrong, or model and tokenizer do not fit.
    """
    return Automaton(source(read_arpa(Path(file)), tokenizer, unit, unknown, unk_log_prob, lookahead), cache_mb)


def of_labels(
    tokenizer: Any, texts: Iterable[str], order: int, min_counts: list[int], has_unknown: bool
) -> tuple[Backoff, list[Discounts]]:
    """A model over the labels of texts, and its discounts."""
    names = [named(symbol) for symbol in tokenizer.symbols]
    return estimate((tokenizer.encode(text) for text in texts), names, order, min_counts, has_unknown)


def of_words(texts: Iterable[str], order: int, min_counts: list[int]) -> tuple[Backoff, list[Discounts]]:
    """A model over the words of texts, `<unk>` included, and its discounts. A literal `<unk>` counts as one."""
    texts = list(texts)
    words = sorted({word for text in texts for word in text.split()} - {UNKNOWN})
    ids = {word: i for i, word in enumerate(words)}
    ids[UNKNOWN] = len(words) + 2
    return estimate(([ids[w] for w in text.split()] for text in texts), words, order, min_counts, has_unknown=True)


class Fit(NamedTuple):
    """How well a model predicts texts; the end of a sentence counts as a word."""

    n_sentences: int
    n_words: int  # ends and unknown words included
    n_unknown: int
    log_prob: float  # nats, of the known words
    unknown_log_prob: float | None  # nats, of the unknown ones; None: the model has no <unk>
    hits: list[int]  # how many known words were found in n-grams of each order, from 1

    @property
    def perplexity(self) -> float:
        """Of the known words."""
        return float(np.exp(-self.log_prob / (self.n_words - self.n_unknown)))

    @property
    def perplexity_with_unknown(self) -> float | None:
        if self.unknown_log_prob is None:
            return None
        return float(np.exp(-(self.log_prob + self.unknown_log_prob) / self.n_words))


def fit(model: Backoff, sentences: Iterable[Sequence[str]]) -> Fit:
    """Of sentences of words as the model writes them. Nothing is known of the context of an unknown word, unless the
    model has n-grams with `<unk>`.

    Raises:
        ValueError: there is no sentence.
    """
    ids = {word: i for i, word in enumerate(model.words)}
    rows = [[*(ids.get(w, -1) for w in sentence), model.end] for sentence in sentences]
    if not rows:
        raise ValueError("there is no text to measure")
    log_prob = unknown_log_prob = 0.0
    n_unknown, hits = 0, np.zeros(model.order + 1, np.int64)
    for begin in range(0, len(rows), _AT_ONCE):
        part = sorted(rows[begin : begin + _AT_ONCE], key=len, reverse=True)
        states = np.full(len(part), model.start)
        for i in range(len(part[0])):
            words = np.array([row[i] for row in part if len(row) > i])
            states, strange = states[: len(words)], words < 0
            words[strange] = model.begin if model.unknown is None else model.unknown
            nodes, weights = model.find(states, words)
            scores, states = weights + model.log_probs[nodes], model.step(states, words)[1]
            log_prob += float(scores[~strange].sum())
            n_unknown += int(strange.sum())
            if model.unknown is None:
                states[strange] = model.empty
            else:
                unknown_log_prob += float(scores[strange].sum())
            hits += np.bincount(model.order_of(nodes[~strange]), minlength=len(hits))
    return Fit(
        n_sentences=len(rows),
        n_words=sum(map(len, rows)),
        n_unknown=n_unknown,
        log_prob=log_prob,
        unknown_log_prob=None if model.unknown is None else unknown_log_prob,
        hits=hits[1:].tolist(),
    )
