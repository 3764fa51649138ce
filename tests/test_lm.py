"""N-gram language models: against definitions written out with dictionaries, against KenLM, and what bad files say."""

import gzip
import json
import math
import sys
from collections import Counter, defaultdict
from functools import cache, partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.build import build_search, call
from asr_lab.errors import ConfigError, DataError
from asr_lab.lm import Fusion
from asr_lab.lm.arpa import read_arpa, write_arpa
from asr_lab.lm.automaton import Automaton, _Sparse
from asr_lab.lm.kenlm import Kenlm, kenlm, vocabulary
from asr_lab.lm.kneser_ney import FALLBACK, distinct, estimate
from asr_lab.lm.ngram import arpa, fit, label_ngram, of_labels, of_words, word_ngram
from asr_lab.text.phones import PhoneTokenizer
from asr_lab.text.subwords import subword_tokenizer
from asr_lab.text.tokenizer import CharTokenizer
from asr_lab.text.words import WordTokenizer

from .conftest import composed, only_line

CPU = torch.device("cpu")
TEXTS = ["the cat sat", "the cat", "a cat sat on the mat", "the mat", "on a mat sat the cat", "a hat"]
CHARS = CharTokenizer("".join(sorted({c for text in TEXTS for c in text} | {"z"})))


# Kneser-Ney, by its definition


class Reference:
    """Interpolated modified Kneser-Ney, n-gram by n-gram, probabilities asked for by context."""

    def __init__(self, sentences, words, order, min_counts, has_unknown):
        self.order, self.base = order, len(words) + 1 + has_unknown
        times = [Counter() for _ in range(order + 1)]
        for sentence in sentences:
            tokens = ("<s>", *sentence, "</s>")
            for n in range(1, order + 1):
                times[n].update(tokens[i : i + n] for i in range(len(tokens) - n + 1) if tokens[i : i + n] != ("<s>",))
        self.adjusted = [dict(t) for t in times]
        for n in range(1, order):
            before = defaultdict(set)
            for gram in times[n + 1]:
                before[gram[1:]].add(gram[0])
            self.adjusted[n] = {g: c if g[0] == "<s>" else len(before[g]) for g, c in times[n].items()}
        least = [*min_counts, *[min_counts[-1]] * (order - len(min_counts))]
        self.kept = [set(), *({g for g, c in times[n].items() if c >= least[n - 1]} for n in range(1, order + 1))]
        self.discounts = [self.discount(n) for n in range(order + 1)]

    def discount(self, n):
        of = Counter(self.adjusted[n].values())
        if not (of[1] and of[2] and of[3]):
            return FALLBACK
        y = of[1] / (of[1] + 2 * of[2])
        values = tuple(k - (k + 1) * y * of[k + 1] / of[k] for k in (1, 2, 3))
        return values if min(values) > 0 else FALLBACK

    @cache  # noqa: B019
    def p(self, word, context):
        n = len(context) + 1
        here = {g[-1]: a for g, a in self.adjusted[n].items() if g[:-1] == context}
        total = sum(here.values())
        if not total:
            return self.p(word, context[1:])
        left = {w: a - self.discounts[n][min(a, 3) - 1] for w, a in here.items() if (*context, w) in self.kept[n]}
        lower = self.p(word, context[1:]) if context else 1 / self.base
        return left.get(word, 0) / total + (1 - sum(left.values()) / total) * lower


def state_of(model, context):
    ids = {w: i for i, w in enumerate(model.words)}
    state = model.start if context[:1] == ("<s>",) else model.empty
    for word in context[context[:1] == ("<s>",) :]:
        state = int(model.step(np.array([state]), np.array([ids[word]]))[1][0])
    return state


sentences = st.lists(st.lists(st.sampled_from("abc"), max_size=5), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(sentences, st.integers(1, 4), st.sampled_from([[1], [1, 2], [1, 1, 3]]), st.booleans())
def test_estimate_is_the_definition_and_sums_to_one(texts, order, min_counts, has_unknown):
    min_counts = min_counts[:order]
    ids = [["abcd".index(w) for w in text] for text in texts]
    model, _ = estimate(ids, list("abcd"), order, min_counts, has_unknown)
    want = Reference(texts, "abcd", order, min_counts, has_unknown)
    begun = [("<s>", *c) for n in range(order - 1) for c in product("abc", repeat=n)]
    contexts = [c for n in range(order) for c in product("abc", repeat=n)] + begun
    states = np.array([state_of(model, c) for c in contexts])
    predicted = [i for i in range(len(model.words)) if i != model.begin]
    log_probs, after = model.rows(states)
    probs = np.exp(log_probs[:, predicted])
    assert probs.sum(axis=1) == pytest.approx(1)
    right = [[want.p(model.words[i], c) for i in predicted] for c in contexts]
    assert probs == pytest.approx(np.array(right))
    # The two ways to ask agree.
    every = np.tile(np.arange(len(model.words)), len(states))
    steps = model.step(np.repeat(states, len(model.words)), every)
    assert steps[0].reshape(log_probs.shape) == pytest.approx(log_probs)
    assert (steps[1].reshape(after.shape) == after).all()


def test_unigrams_by_hand():
    model, [discounts] = estimate([[0], [0, 1]], ["a", "b"], 1, [1], has_unknown=False)
    assert discounts == ((0.5, 1.0, 1.5), True)  # no word is there three times
    # a and </s> twice, b once: of 5, 1 + 1 + 0.5 is taken off and shared by three words
    assert np.exp(model.log_probs[1:4]) == pytest.approx([11 / 30, 8 / 30, 11 / 30])


def test_discounts_by_hand():
    """Adjusted counts 1, 1, 1, 2, 2, 3, 4 have y = 3/7."""
    grams = [[i] for i, times in enumerate([1, 1, 1, 2, 2, 3, 4]) for _ in range(times)]
    _, [discounts] = estimate(grams, [*"abcdefg"], 1, [1], has_unknown=False)
    y = 3 / 7  # </s> comes 14 times, which is no count of 1 to 4
    assert discounts.values == pytest.approx((1 - 2 * y * 2 / 3, 2 - 3 * y * 1 / 2, 3 - 4 * y * 1 / 1))
    assert not discounts.fallback


def test_rows_are_told_apart_however_many_values_there_are():
    rows = np.random.default_rng(0).integers(0, 3, (200, 7)) * 1_000_000_007
    found, place = distinct(rows, 3_000_000_022)
    assert (found[place] == rows).all()
    assert list(map(tuple, found.tolist())) == sorted(set(map(tuple, rows.tolist())))


def test_fall_back_is_one_line_in_the_log(caplog):
    with caplog.at_level("INFO"):
        of_words(["a b"], 3, [1])
    [record] = caplog.records
    assert record.getMessage() == "n-grams of order 1, 2, 3: no discounts from their counts; 0.5, 1.0, 1.5 are used"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"order": 0}, "order must be 1 or more, 0 came"),
        ({"min_counts": [2]}, "from 1 and"),
        ({"min_counts": 2}, "min_counts is a list .*; 2 came"),
        ({"min_counts": [1, 3, 2]}, "never becoming smaller"),
        ({"min_counts": [1, 1, 1, 1]}, "up to 3 counts"),
        ({"texts": []}, "no text"),
        ({"texts": ["a <s> b"]}, "'<s>', which is a special word"),
    ],
)
def test_what_cannot_be_estimated(change, says):
    with pytest.raises(ValueError, match=says):
        of_words(**{"texts": TEXTS, "order": 3, "min_counts": [1], **change})


# Automata over labels


def contents(lm: Automaton, labels: list[int]) -> float:
    """The score of a sentence, label by label."""
    state, total = lm.begin(1, CPU), 0.0
    for label in labels:
        total += float(lm.scores(state)[0, label])
        state = lm.advance(state, torch.tensor([label]))
    return total + float(lm.scores(state)[0, -1])


def sparse(lm: Automaton) -> Automaton:
    """The same with the tables of an automaton that is too large for an array."""
    lm.source.n_states = None
    return lm


@pytest.mark.parametrize("change", [lambda lm: lm, sparse])
def test_labels_and_the_end_sum_to_one_at_every_state(change):
    lm = change(label_ngram(CHARS, TEXTS, order=4, min_counts=[1], cache_mb=1))
    g, state = torch.Generator().manual_seed(0), lm.begin(64, CPU)
    for _ in range(20):
        scores = lm.scores(state)
        assert scores.shape == (64, len(CHARS) + 1) and scores.dtype == torch.float32
        torch.testing.assert_close(scores.exp().sum(dim=1), torch.ones(64))
        state = lm.advance(state, torch.randint(len(CHARS), (64,), generator=g))
        state = lm.select(state, torch.randint(64, (64,), generator=g))


def test_fusion_totals_are_the_models_log_probabilities():
    build = partial(label_ngram, order=4, min_counts=[1], cache_mb=1)
    fusion = Fusion(CHARS, TEXTS, build, weight=0.7, bonus=0.25, use="fusion")
    want = Reference([list(t) for t in TEXTS], CHARS.symbols, 4, [1], has_unknown=False)
    for text in ["the cat", "zz", "", "a hat sat"]:
        tokens, log_prob = ["<s>", *text, "</s>"], 0.0
        for i in range(1, len(tokens)):
            log_prob += math.log(want.p(tokens[i], tuple(tokens[max(0, i - 3) : i])))
        [total] = fusion.total([CHARS.encode(text)], CPU).tolist()
        assert total == pytest.approx(0.7 * log_prob + 0.25 * len(text), abs=1e-4)
    nothing = Fusion(CHARS, TEXTS, build, weight=0.0, bonus=0.0, use="fusion")
    assert not nothing.in_search and nothing.total([[0, 1]], CPU).tolist() == [0]


@pytest.mark.parametrize("change", [lambda lm: lm, sparse])
def test_small_tables_are_emptied_and_say_the_same(change):
    many, few = (
        change(label_ngram(CHARS, TEXTS, order=5, min_counts=[1], cache_mb=mb)) for mb in (8, 2e-3)
    )  # room for 14 states, of which a batch has up to 6
    few.source.n_states = None if change is sparse else few.source.n_states
    held = few.begin(1, CPU)
    for text in TEXTS * 2:
        labels = CHARS.encode(text)
        assert contents(few, labels) == pytest.approx(contents(many, labels), abs=1e-5)
    assert len(few._on(CPU).scores) <= few._on(CPU).most < len(set(many._on(CPU).after.flatten().tolist()))
    torch.testing.assert_close(few.scores(held), many.scores(many.begin(1, CPU)))
    wide = few.advance(few.begin(len(CHARS), CPU), torch.arange(len(CHARS)))  # more states at once than there is room
    torch.testing.assert_close(
        few.scores(wide), many.scores(many.advance(many.begin(len(CHARS), CPU), torch.arange(len(CHARS))))
    )


def test_tables_made_in_inference_mode_grow_outside_it():
    lm = sparse(label_ngram(CHARS, TEXTS, order=4, min_counts=[1], cache_mb=1))
    with torch.inference_mode():
        inside = contents(lm, CHARS.encode("the cat"))
    assert contents(lm, CHARS.encode("on a mat")) < 0
    assert contents(lm, CHARS.encode("the cat")) == inside


def test_large_automata_have_sparse_tables():
    lm = sparse(label_ngram(CHARS, TEXTS, order=4, min_counts=[1], cache_mb=1))
    assert isinstance(lm._on(CPU)._index, _Sparse)


# Words that labels spell


LEXICON = {"the": [("dh", "ax"), ("dh", "iy")], "cat": [("k", "ae", "t")], "kat": [("k", "ae", "t")]}
LEXICON |= {"mat": [("m", "ae", "t")], "a": [("ax",)], "sat": [("s", "ae", "t")], "on": [("aa", "n")]}
LEXICON |= {"hat": [("hh", "ae", "t")], "z": [("z",)]}


def tokenizers(tmp_path, monkeypatch):
    monkeypatch.setenv("ASR_LAB_CACHE", str(tmp_path))
    words = sorted({w for text in TEXTS for w in text.split()})
    return {
        "char": CHARS,
        "bpe": subword_tokenizer([*TEXTS, "zz"], "bpe", 16, 1.0),
        "words": WordTokenizer(words, has_unknown=True),
        "phones": PhoneTokenizer(LEXICON, Counter()),
    }


def sentence_score(model, words, unk_log_prob=None):
    """Word by word; unknown words have their own price, and leave no context."""
    ids, state, total = {w: i for i, w in enumerate(model.words)}, np.array([model.start]), 0.0
    for word in (*words, "</s>"):
        if word in ids:
            log_prob, state = model.step(state, np.array([ids[word]]))
            total += float(log_prob[0])
        else:
            total, state = total + unk_log_prob, np.array([model.empty])
    return total


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("kind", ["char", "bpe", "words", "phones"])
def test_words_sum_to_the_word_models_score(kind, lookahead, tmp_path, monkeypatch):
    tokenizer = tokenizers(tmp_path, monkeypatch)[kind]
    model, _ = of_words(TEXTS, 3, [1])
    lm = word_ngram(tokenizer, TEXTS, 3, [1], "open", -9.0, lookahead, 8)
    for text in [*TEXTS, "mat the hat on", "a a a", ""]:
        want = sentence_score(model, text.split())
        assert contents(lm, tokenizer.encode(text)) == pytest.approx(want, abs=1e-4)
    strange = {"words": "the dog sat", "phones": "the z sat"}.get(kind, "the zcat sat")
    want = sentence_score(model, strange.split(), -9.0)
    assert contents(lm, tokenizer.encode(strange)) == pytest.approx(want, abs=1e-4)
    closed = word_ngram(tokenizer, TEXTS, 3, [1], "closed", -9.0, lookahead, 8)
    assert contents(closed, tokenizer.encode(strange)) == -math.inf
    assert contents(closed, tokenizer.encode("the cat")) == pytest.approx(
        sentence_score(model, ["the", "cat"]), abs=1e-4
    )


@pytest.mark.parametrize("unknown", ["open", "closed"])
def test_no_score_is_ever_nan(unknown):
    lm = word_ngram(CHARS, TEXTS, 3, [1], unknown, -9.0, True, 8)
    g, state = torch.Generator().manual_seed(0), lm.begin(200, CPU)
    for _ in range(30):
        assert not lm.scores(state).isnan().any()
        assert (lm.scores(state) < math.inf).all()
        state = lm.advance(state, torch.randint(len(CHARS), (200,), generator=g))


def test_spaces_that_are_no_words_cost_nothing():
    lm = word_ngram(CHARS, TEXTS, 3, [1], "open", -9.0, True, 8)
    plain = contents(lm, CHARS.encode("the cat"))
    for text in (" the cat", "the  cat", "the cat ", "  the   cat  "):
        assert contents(lm, CHARS.encode(text)) == pytest.approx(plain, abs=1e-4)


def test_of_words_that_sound_alike_the_likelier_one_counts():
    tokenizer = PhoneTokenizer(LEXICON, Counter())
    texts = ["a cat", "a cat", "the kat", "the kat"]
    model, _ = of_words(texts, 3, [1])
    lm = word_ngram(tokenizer, texts, 3, [1], "open", -9.0, True, 8)
    for text in ("a cat", "the kat"):
        assert contents(lm, tokenizer.encode(text)) == pytest.approx(sentence_score(model, text.split()), abs=1e-4)
    heard = [tokenizer.symbols.index(s) for s in ("dh", "iy", "|", "k", "ae", "t")]  # the other way to say "the"
    assert contents(lm, heard) == pytest.approx(sentence_score(model, ["the", "kat"]), abs=1e-4)


def test_lookahead_pays_for_unlikely_words_before_they_end():
    early, late = (word_ngram(CHARS, TEXTS, 2, [1], "open", -30.0, ahead, 8) for ahead in (True, False))
    model, _ = of_words(TEXTS, 2, [1])
    unigram = dict(zip(model.words, model.log_probs[1:], strict=False))
    first = {c: float(early.scores(early.begin(1, CPU))[0, CHARS.encode(c)[0]]) for c in "otz"}
    assert first == pytest.approx({"o": unigram["on"], "t": unigram["the"], "z": -30.0}, abs=1e-4)
    assert not late.scores(late.begin(1, CPU))[0, CHARS.encode("t")].any()


# ARPA files

SMALL = """some words before

\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-99\t<s>\t-0.3
-0.5\t</s>
-1.5\t<unk>
-0.4 a -0.2
-0.6\tb

\\2-grams:
-0.1\t<s> a
-0.2\ta b

\\end\\
"""


def test_arpa_by_hand(tmp_path):
    (tmp_path / "x.arpa").write_text(SMALL)
    (tmp_path / "x.gz").write_bytes(gzip.compress(SMALL.encode()))
    for name in ("x.arpa", "x.gz"):
        model = read_arpa(tmp_path / name)
        found = fit(model, [["a", "b"], ["b", "c", "a"]])
        log10 = (-0.1 - 0.2 - 0.5) + (-0.3 - 0.6) + (-0.4) + (-0.2 - 0.5)
        assert found.log_prob == pytest.approx(log10 * math.log(10))
        assert found.unknown_log_prob == pytest.approx(-1.5 * math.log(10))
        assert found[:3] == (2, 7, 1) and found.hits == [4, 2]
        assert found.perplexity == pytest.approx(10 ** (-log10 / 6))
        assert found.perplexity_with_unknown == pytest.approx(10 ** ((1.5 - log10) / 7))


@pytest.mark.parametrize("min_counts", [[1], [1, 1, 2]])
@pytest.mark.parametrize("name", ["x.arpa", "x.arpa.gz"])
def test_arpa_round_trip(name, min_counts, tmp_path):
    model, _ = of_labels(CHARS, TEXTS, 4, min_counts, has_unknown=True)
    write_arpa(tmp_path / name, model)
    again = read_arpa(tmp_path / name)
    assert again.words == model.words and again.n_states == model.n_states
    states = np.arange(model.n_states)
    for got, want in zip(again.rows(states), model.rows(states), strict=True):
        columns = [i for i in range(len(model.words)) if i != model.begin]
        assert got[:, columns] == pytest.approx(want[:, columns], abs=1e-5)
    bytes_of = (tmp_path / name).read_bytes()
    assert write_arpa(tmp_path / name, model).read_bytes() == bytes_of


def dictionary_score(arpa_text: str, sentence: list[str]) -> float:
    """log10, from the text of an ARPA file, by the definition."""
    probs, backoffs = {}, {}
    for line in arpa_text.splitlines():
        fields = line.split("\t")
        if len(fields) > 1:
            gram = tuple(fields[1].split(" "))
            probs[gram], backoffs[gram] = float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0

    def p(gram):
        return probs[gram] if gram in probs else backoffs.get(gram[:-1], 0.0) + p(gram[1:])

    tokens = ["<s>", *(w if (w,) in probs else "<unk>" for w in sentence), "</s>"]
    return sum(p(tuple(tokens[max(0, i - 2) : i + 1])) for i in range(1, len(tokens)))


def test_perplexity_is_that_of_a_dictionary(tmp_path):
    model, _ = of_words(TEXTS, 3, [1, 1, 2])
    text = write_arpa(tmp_path / "x.arpa", model).read_text()
    heard = [["the", "cat", "on", "a", "dog"], ["hat", "hat"], [], ["the", "mat", "sat", "on"]]
    found = fit(read_arpa(tmp_path / "x.arpa"), heard)
    want = sum(dictionary_score(text, s) for s in heard) * math.log(10)
    assert found.log_prob + found.unknown_log_prob == pytest.approx(want)
    assert found.n_unknown == 1 and sum(found.hits) == found.n_words - 1
    ten_thousand = fit(read_arpa(tmp_path / "x.arpa"), heard * 3000)
    assert ten_thousand.perplexity == pytest.approx(found.perplexity)


def broken(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hello\n", r"x.arpa: no line '\\data\\'; this is not an ARPA file"),
        (broken("ngram 2=2", "ngram 3=2"), r"x.arpa:5: 'ngram 2=' and a count, or .* expected, 'ngram 3=2' came"),
        (broken("ngram 1=5", "ngram 1=many"), r"x.arpa:4: 'ngram 1='"),
        (broken("ngram 2=2", "ngram 2=3"), "x.arpa: 2 2-grams, but its head says 3; is it whole"),
        (broken("-0.6\tb\n", ""), "x.arpa: 4 1-grams, but its head says 5"),
        (broken("-0.4 a -0.2", "-0.4"), r"x.arpa:11: not a 1-gram \('-0.4'\); a line is"),
        (broken("-0.4 a -0.2", "0.4 a -0.2"), "x.arpa:11: not a 1-gram"),
        (broken("-0.4 a -0.2", "-0.4 a nan"), "x.arpa:11: not a 1-gram"),
        (broken("-0.4 a -0.2", "-0.4 a b -0.2"), "x.arpa:11: not a 1-gram"),
        (broken("a b", "a c"), r"x.arpa:16: 'c' is not among the 1-grams"),
        (broken("\ta b", "\t<s> a"), "x.arpa:16: 2-gram '<s> a': it was there before"),
        (broken("-0.6\tb", "-0.6\ta"), "x.arpa:12: 1-gram 'a': it was there before"),
        (broken("\\2-grams:", "\\3-grams:"), r"'\\2-grams:' expected, '\\3-grams:' came"),
        (broken("\\end\\", ""), "it ends within its 2-grams"),
        (broken("\\end\\", "\\the end\\"), r"'\\end\\' expected"),
        (broken("</s>", "b2"), "'</s>' is not among its words"),
        (
            SMALL.replace("ngram 2=2", "ngram 2=2\nngram 3=1").replace("\\end", "\\3-grams:\n-1\tb a b\n\n\\end"),
            "x.arpa:20: 3-gram 'b a b': its first 2 words are no 2-gram",
        ),
        (SMALL[: SMALL.index("ngram 2")], "it ends within its head"),
    ],
)
def test_broken_arpa_is_one_line_that_names_the_place(text, says, tmp_path):
    (tmp_path / "x.arpa").write_text(text)
    with pytest.raises(DataError, match=says) as error:
        read_arpa(tmp_path / "x.arpa")
    assert "\n" not in str(error.value)


def test_files_that_are_no_arpa(tmp_path):
    with pytest.raises(DataError, match="none: the language model cannot be read"):
        read_arpa(tmp_path / "none")
    (tmp_path / "torn.gz").write_bytes(gzip.compress(SMALL.encode())[:-30])
    with pytest.raises(DataError, match=r"torn.gz: the language model cannot be read"):
        read_arpa(tmp_path / "torn.gz")
    (tmp_path / "binary").write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0")
    with pytest.raises(DataError, match=r"binary file of KenLM.* use lm=kenlm"):
        read_arpa(tmp_path / "binary")
    (tmp_path / "latin").write_bytes(broken("\tb", "\tä").replace("a b", "a ä").encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_arpa(tmp_path / "latin")


# A model beside a tokenizer

VALUES = {"unit": "label", "unknown": "open", "unk_log_prob": -9.0, "lookahead": True, "cache_mb": 8}


@pytest.fixture
def two_words(tmp_path) -> str:
    """An ARPA file over the words a and b."""
    (tmp_path / "x.arpa").write_text(SMALL)
    return str(tmp_path / "x.arpa")


def test_labels_that_the_model_does_not_know(two_words):
    tokenizer = CharTokenizer("abz")
    lm = arpa(tokenizer, file=two_words, **VALUES)
    want = math.log(10) * (-0.1 - 0.4 - 0.5) - 9 + math.log(10) * -0.2
    assert contents(lm, tokenizer.encode("aza")) == pytest.approx(want, abs=1e-5)
    closed = arpa(tokenizer, file=two_words, **VALUES | {"unknown": "closed"})
    assert contents(closed, tokenizer.encode("aza")) == -math.inf


@pytest.mark.parametrize("space", ["<space>", "|", "▁"])
def test_spaces_of_character_models(space, tmp_path):
    (tmp_path / "x.arpa").write_text(SMALL.replace("\tb", f"\t{space}").replace("a b", f"a {space}"))
    lm = arpa(CharTokenizer(" a"), file=str(tmp_path / "x.arpa"), **VALUES)
    assert contents(lm, [1, 0]) == pytest.approx(math.log(10) * (-0.1 - 0.2 - 0.5), abs=1e-5)


@pytest.mark.parametrize(
    ("alphabet", "change", "says"),
    [
        ("ac", {}, r"1 of the language model's 5 words are no label of the tokenizer \('b'\)"),
        ("AB ", {"unit": "word"}, "none of the language model's 5 words can be written with the tokenizer's labels"),
        ("ab", {"unit": "word"}, "no label of the tokenizer holds a space"),
        ("ab", {"unit": "phone"}, "unit=phone; choose from: label, word"),
        ("ab", {"unknown": "maybe"}, "unknown=maybe; choose from: open, closed"),
        ("ab", {"unk_log_prob": 0.0}, "unk_log_prob is a log-probability, below 0; 0.0 came"),
        ("ab", {"cache_mb": 0}, "cache_mb is the size of the tables in MiB, more than 0; 0 came"),
    ],
)
def test_what_does_not_fit_is_one_line(alphabet, change, says, two_words):
    with pytest.raises(ValueError, match=says):
        arpa(CharTokenizer(alphabet), file=two_words, **VALUES | change)


@pytest.mark.parametrize("choice", ["ngram", "ngram_words", "arpa"])
def test_choices_are_built_from_the_configuration(choice, two_words):
    from asr_lab.sweep.cell import resolved

    extra = [f"lm.model.file={two_words}"] if choice == "arpa" else []
    config = resolved(composed(f"lm={choice}", "lm.use=rescoring", "lm.weight=0.5", *extra))
    tokenizer = CharTokenizer(" ab")
    decoder = call(config, "decoder", in_dim=4, n_labels=3)
    _, lm = build_search(config, decoder, tokenizer, ["a b", "a"])
    assert lm.total([tokenizer.encode("a b")], CPU).isfinite().all()
    config["lm"]["model"]["cache_mb"] = -1.0
    with pytest.raises(ConfigError, match=r"conf/lm: .*cache_mb"):
        build_search(config, decoder, tokenizer, ["a b", "a"])


# KenLM


def test_without_kenlm_one_line_names_the_extra(two_words, monkeypatch):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ConfigError, match=r"pip install 'asr-lab\[lm\]'"):
        kenlm(CharTokenizer("ab"), file=two_words, **VALUES)


def test_vocabulary_of_a_binary_file(tmp_path):
    """The words stand at its end, each with a zero byte after it."""
    head = b"mmap lm http://kheafield.com/code format version 5\n\0"
    (tmp_path / "x.bin").write_bytes(head + b"\0<unk>\0\x07\x00numbers\0" + b"<unk>\0<s>\0ja\0</s>\0")
    assert vocabulary(tmp_path / "x.bin") == ["<unk>", "<s>", "ja", "</s>"]
    (tmp_path / "x.bin").write_bytes(head + b"\x07\x00numbers")
    with pytest.raises(DataError, match="holds no words"):
        vocabulary(tmp_path / "x.bin")


class TestKenlm:
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("kenlm", reason="extra 'lm' is not installed")

    def test_perplexity_is_that_of_its_query(self, tmp_path):
        import kenlm as package

        model, _ = of_words(TEXTS, 3, [1, 1, 2])
        path = write_arpa(tmp_path / "x.arpa", model)
        query = package.Model(str(path))
        for text in [*TEXTS, "the dog sat", ""]:
            found = fit(model, [text.split()])
            want = query.score(text) * math.log(10)
            assert found.log_prob + found.unknown_log_prob == pytest.approx(want, abs=1e-4)

    @pytest.mark.parametrize("unit", ["label", "word"])
    def test_it_says_what_our_own_reader_says(self, unit, tmp_path):
        model, _ = of_words(TEXTS, 3, [1]) if unit == "word" else of_labels(CHARS, TEXTS, 4, [1], True)
        path = str(write_arpa(tmp_path / "x.arpa", model))
        values = VALUES | {"unit": unit, "file": path}
        for text in [*TEXTS, "the zcat sat", ""]:
            labels = CHARS.encode(text)
            want = contents(arpa(CHARS, **values), labels)
            assert contents(kenlm(CHARS, **values), labels) == pytest.approx(want, abs=1e-3)

    def test_bad_files(self, tmp_path):
        # KenLM wants nothing before, and tabs.
        whole = SMALL.removeprefix("some words before\n\n").replace("-0.4 a -0.2", "-0.4\ta\t-0.2")
        for content, says in (
            (whole[:60], "is it whole"),
            ("", "no line"),
            (whole.replace("ngram 2=2", "ngram 2=3"), r"x.arpa: KenLM cannot load it \(.*2-gram"),
            (whole[: whole.index("\n\\2")].replace("ngram 2=2", "") + "\n\\end\\\n", r"\(.*at least a bigram model"),
        ):
            (tmp_path / "x.arpa").write_text(content)
            with pytest.raises(DataError, match=says) as error:
                Kenlm(tmp_path / "x.arpa")
            assert "\n" not in str(error.value)
        with pytest.raises(DataError, match="cannot be read"):
            Kenlm(tmp_path / "none.arpa")


# The command


def test_estimate_and_perplexity(asr_lab, tmp_path):
    (tmp_path / "text.txt").write_text("\ufeff" + "\n".join(TEXTS) + "\n\n")
    (tmp_path / "more.txt.gz").write_bytes(gzip.compress(b"the hat\n"))
    done = asr_lab(
        "lm", "estimate", "text.txt", "more.txt.gz", "--order", "2", "--out", "x.arpa", cwd=tmp_path
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1-grams: 10, discounts 0.500, 1.000, 1.500  (fall-back" in done.stdout and "wrote x.arpa" in done.stdout
    want, _ = of_words([*TEXTS, "the hat"], 2, [1])
    assert read_arpa(tmp_path / "x.arpa").log_probs[1:] == pytest.approx(
        np.maximum(want.log_probs[1:], -99 * math.log(10)), abs=1e-5
    )
    (tmp_path / "heard.txt").write_text("the dog sat\n")
    done = asr_lab("lm", "perplexity", "x.arpa", "heard.txt", cwd=tmp_path)
    assert "1 sentences, 4 words with the ends of sentences\nunknown: 1 (25.00 %)\nperplexity: " in done.stdout
    done = asr_lab("lm", "perplexity", "x.arpa", "heard.txt", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["n_unknown"] == 1


def test_characters_and_a_corpus(asr_lab, tones, tmp_path):
    done = asr_lab(
        "lm", "estimate", "--data", str(tones), "--order", "3", "--unit", "label", "--out", "x.arpa.gz", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    model = read_arpa(tmp_path / "x.arpa.gz")
    assert "<space>" in model.words and "<unk>" in model.words and model.order == 3
    done = asr_lab("lm", "perplexity", "x.arpa.gz", "--data", str(tones), "--split", "val", cwd=tmp_path)
    assert "labels with the ends" in done.stdout and "unknown: 0" in done.stdout


def test_labels_of_a_run(asr_lab, trained, tmp_path):
    run, _ = trained("encoder=bilstm", "tokenizer=words", "trainer.max_steps=1")
    folder = str(run.folder)
    done = asr_lab("lm", "estimate", "--run", folder, "--unit", "label", "--out", "x.arpa", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = asr_lab("lm", "perplexity", "x.arpa", "--run", folder, "--unit", "label", cwd=tmp_path)
    assert "unknown: 0" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["estimate", "--out", "x"], "nothing to read"),
        (["estimate", "none.txt", "--out", "x"], "none.txt: the text cannot be read (No such file"),
        (["estimate", "empty.txt", "--out", "x"], "no text to estimate"),
        (["estimate", "text.txt", "--out", "x", "--order", "0"], "order must be 1 or more"),
        (["estimate", "text.txt", "--out", "x", "--unit", "phone"], "--unit phone; choose from: label, word"),
        (["estimate", "text.txt", "--out", "."], "is a folder"),
        (["estimate", "latin.txt", "--out", "x"], "latin.txt:2: it is not UTF-8"),
        (["estimate", "text.txt", "--data", "an5", "--out", "x"], "an4"),
        (["estimate", "--run", "nothing", "--out", "x"], "no run 'nothing'"),
        (["perplexity", "text.txt", "text.txt"], "not an ARPA file"),
        (["perplexity", "x.arpa", "empty.txt"], "no text to measure"),
    ],
)
@pytest.mark.quick(4)
def test_mistakes_are_one_line(arguments, says, asr_lab, tmp_path):
    (tmp_path / "text.txt").write_text("a b\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "latin.txt").write_bytes("a\nä\n".encode("latin-1"))
    (tmp_path / "x.arpa").write_text(SMALL)
    assert says in only_line(asr_lab("lm", *arguments, cwd=tmp_path))
    assert not (tmp_path / "x").exists()
