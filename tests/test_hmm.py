"""Hidden Markov models: sums, occupancies, best paths and searches against enumeration, in float64."""

import itertools
import math

import pytest
import torch

from asr_lab.build import build
from asr_lab.decoders.hmm import HmmDecoder
from asr_lab.decoding.grammar import make_grammar
from asr_lab.decoding.hmm import HmmSearch
from asr_lab.layers.hmm_chain import best_path, occupancies, picked
from asr_lab.sweep.cell import resolved
from asr_lab.text.phones import PhoneTokenizer
from asr_lab.text.tokenizer import CharTokenizer
from asr_lab.text.words import WordTokenizer

from .conftest import composed, tiny

D = 4
VALUES = {
    "n_states": 2, "silence": "ends", "training": "full_sum", "flat_steps": 0, "prior_scale": 0.7, "momentum": 0.9,
    "p_loop": 0.5, "dropout": 0.0,
}  # fmt: skip


def decoder_of(n_labels: int = 3, seed: int = 0, **changes) -> HmmDecoder:
    """With random weights, and priors and transitions that differ from state to state."""
    g = torch.Generator().manual_seed(seed)
    decoder = HmmDecoder(in_dim=D, n_labels=n_labels, **(VALUES | changes)).double()
    with torch.no_grad():
        for p in decoder.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.double))
        decoder.prior.copy_(torch.rand(decoder.prior.shape, generator=g).softmax(dim=0))
        decoder.visits.copy_(0.2 + 0.6 * torch.rand(decoder.prior.shape, generator=g))
    return decoder


def hidden_of(n_frames: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(1, n_frames, D, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def all_paths(decoder, scores, labels):
    """Every (weight, state of each frame, frame at which each label begins) that spells the labels, by durations."""
    u, n = len(scores), decoder.n_states
    p = decoder.transitions()[0].exp().tolist()
    inner = [label * n + j for label in labels for j in range(n)]
    ends = [False, True] if decoder.has_silence else [False]
    for before, after in itertools.product(ends, ends):
        states = [decoder.silence] * before + inner + [decoder.silence] * after
        for cuts in itertools.combinations(range(1, u), len(states) - 1):
            starts = [0, *cuts]
            durations = [b - a for a, b in zip(starts, [*cuts, u], strict=True)]
            path = [s for s, d in zip(states, durations, strict=True) for _ in range(d)]
            weight = sum(float(scores[t, s]) for t, s in enumerate(path))
            weight += sum((d - 1) * math.log(p[s]) + math.log(1 - p[s]) for s, d in zip(states, durations, strict=True))
            weight += 2 * math.log(0.5) if decoder.has_silence else 0.0
            yield weight, path, starts[before : before + len(inner) : n]


def log_sum(weights) -> float:
    return float(torch.logsumexp(torch.tensor(list(weights), dtype=torch.double), dim=0))


def best_of(decoder, scores, labels) -> tuple[float, list[list[int]], list[list[int]]]:
    """(weight, paths, label frames) of all that tie: with one state a label, `aa` may change over anywhere."""
    paths = list(all_paths(decoder, scores, labels))
    top = max(w for w, *_ in paths)
    best = [found for found in paths if found[0] > top - 1e-9]
    return top, [path for _, path, _ in best], [starts for *_, starts in best]


def brute_occupancies(decoder, scores, labels) -> torch.Tensor:
    """(U,K)"""
    paths = list(all_paths(decoder, scores, labels))
    total = log_sum(w for w, *_ in paths)
    out = torch.zeros_like(scores)
    for w, path, _ in paths:
        out[torch.arange(len(path)), path] += math.exp(w - total)
    return out


def lens_of(*lens: int) -> torch.Tensor:
    return torch.tensor(lens)


TOPOLOGIES = [(1, "none"), (1, "ends"), (2, "ends"), (3, "none")]


@pytest.mark.parametrize(("n_states", "silence"), TOPOLOGIES)
@pytest.mark.parametrize("labels", [[1], [2, 0], [1, 1]])
class TestAgainstEnumeration:
    def given(self, n_states, silence, **changes):
        decoder = decoder_of(n_states=n_states, silence=silence, **changes)
        hidden = hidden_of(8)
        log_probs = decoder.log_probs(hidden)[0].detach()
        return decoder, hidden, log_probs, decoder.scaled(log_probs, decoder.prior_scale)

    def test_full_sum(self, n_states, silence, labels):
        decoder, hidden, log_probs, scaled = self.given(n_states, silence)
        args = lens_of(8), torch.tensor([labels]), lens_of(len(labels))
        want = log_sum(w for w, *_ in all_paths(decoder, scaled, labels))
        without_priors = log_sum(w for w, *_ in all_paths(decoder, log_probs, labels))
        assert decoder.train().loss(hidden, *args).item() == pytest.approx(-want, abs=1e-9)
        decoder, *_ = self.given(n_states, silence, training="viterbi")
        assert decoder.eval().loss(hidden, *args).item() == pytest.approx(-without_priors, abs=1e-9)

    def test_gradient_is_posteriors_minus_occupancies(self, n_states, silence, labels):
        gradients = []
        for mode in ("full_sum", "baum_welch"):
            decoder, hidden, log_probs, scaled = self.given(n_states, silence, training=mode)
            logits = decoder.output(hidden).detach().requires_grad_()
            decoder.output = torch.nn.Identity()
            want = log_probs.exp() - brute_occupancies(decoder, scaled, labels)
            decoder.loss(logits, lens_of(8), torch.tensor([labels]), lens_of(len(labels))).sum().backward()
            assert logits.grad is not None
            torch.testing.assert_close(logits.grad[0], want, atol=1e-9, rtol=0)
            gradients.append(logits.grad)
        torch.testing.assert_close(*gradients)

    def test_baum_welch_and_viterbi_are_cross_entropies(self, n_states, silence, labels):
        args = lens_of(8), torch.tensor([labels]), lens_of(len(labels))
        decoder, hidden, log_probs, scaled = self.given(n_states, silence, training="baum_welch")
        want = -(brute_occupancies(decoder, scaled, labels) * log_probs).sum()
        torch.testing.assert_close(decoder.loss(hidden, *args)[0], want)
        decoder, *_ = self.given(n_states, silence, training="viterbi")
        _, path, _ = max(all_paths(decoder, scaled, labels))
        want = -log_probs[torch.arange(8), path].sum()
        torch.testing.assert_close(decoder.loss(hidden, *args)[0], want)

    def test_alignment_is_the_best_path(self, n_states, silence, labels):
        decoder, hidden, log_probs, scaled = self.given(n_states, silence)
        weight, [path, *_], starts = best_of(decoder, scaled, labels)
        [spans] = decoder.eval().align(hidden, lens_of(8), torch.tensor([labels]), lens_of(len(labels)))
        assert [s.label for s in spans] == labels and [s.start for s in spans] in starts
        said = [t for t, s in enumerate(path) if s != decoder.silence or silence == "none"]
        assert [t for s in spans for t in range(s.start, s.end)] == said
        if len(starts) == 1:
            first = [float(log_probs[t, path[t]]) for t in range(spans[0].start, spans[0].end)]
            assert spans[0].score == pytest.approx(sum(first) / len(first))
        chain = decoder.chain(torch.tensor([labels]), lens_of(len(labels)))
        score, _ = best_path(picked(scaled[None], chain), chain, lens_of(8))
        assert score.item() == pytest.approx(weight)


def test_occupancies_of_a_frame_sum_to_one_and_padding_has_none():
    decoder = decoder_of()
    labels, label_lens, lens = torch.tensor([[0, 1, 2], [1, 0, 0]]), lens_of(3, 1), lens_of(14, 9)
    chain = decoder.chain(labels, label_lens)
    scores = picked(decoder.log_probs(torch.randn(2, 14, D, dtype=torch.double)), chain)
    total, shares = occupancies(scores, chain, lens)
    torch.testing.assert_close(shares.sum(dim=2), (torch.arange(14) < lens[:, None]).double())
    assert not shares[1, :, 4:].any()  # silence, two states, silence
    alone, _ = occupancies(scores[1:, :9, :4], type(chain)(*(t[1:, :4] for t in chain)), lens[1:])
    torch.testing.assert_close(alone, total[1:])


def test_gradient_against_differences():
    decoder = decoder_of(momentum=0.0)
    labels = torch.tensor([[1, 0], [2, 0]])

    def loss(hidden):
        decoder.prior.fill_(0.1)  # training moves it
        return decoder.loss(hidden, lens_of(7, 5), labels, lens_of(2, 1))

    assert torch.autograd.gradcheck(loss, (torch.randn(2, 7, D, dtype=torch.double).requires_grad_(),))


def test_a_flat_start_by_hand():
    """Seven frames over silence, two states of label 1, silence: 7 / 4 frames each, rounded down."""
    decoder = decoder_of(flat_steps=1, training="viterbi")
    hidden = hidden_of(7)
    log_probs = decoder.log_probs(hidden)[0]
    path = [6, 6, 2, 2, 3, 3, 6]
    args = lens_of(7), torch.tensor([[1]]), lens_of(1)
    torch.testing.assert_close(decoder.loss(hidden, *args)[0], -log_probs[torch.arange(7), path].sum())
    assert decoder.n_steps == 1
    _, path, _ = max(all_paths(decoder, decoder.scaled(log_probs, 0.7).detach(), [1]))
    torch.testing.assert_close(decoder.loss(hidden, *args)[0], -log_probs[torch.arange(7), path].sum())
    decoder.eval().loss(hidden, *args)
    assert decoder.n_steps == 2, "evaluation is no step"


def test_priors_and_transitions_are_running_means():
    decoder = decoder_of(p_loop="estimated", momentum=0.0, training="baum_welch")
    hidden, lens = torch.cat([hidden_of(8), hidden_of(8, seed=2)]), lens_of(8, 6)
    log_probs = decoder.log_probs(hidden).detach()
    valid = [log_probs[0], log_probs[1, :6]]
    want, visits = [], torch.zeros(7, dtype=torch.double)
    for frames, labels in zip(valid, ([1, 2], [1]), strict=True):
        occupied = brute_occupancies(decoder, decoder.scaled(frames, 0.7), labels)
        want.append(occupied.sum(dim=0))
        for label in labels:
            visits[2 * label : 2 * label + 2] += 1
        visits[6] += occupied[0, 6] + occupied[-1, 6]
    decoder.loss(hidden, lens, torch.tensor([[1, 2], [1, 0]]), lens_of(2, 1))
    torch.testing.assert_close(decoder.prior, torch.cat(valid).exp().mean(dim=0))
    torch.testing.assert_close(decoder.frames, want[0] + want[1])
    torch.testing.assert_close(decoder.visits, visits)
    stay, leave = decoder.transitions()
    torch.testing.assert_close(stay.exp() + leave.exp(), torch.ones(7, dtype=torch.double))
    seen = visits > 0
    torch.testing.assert_close(leave.exp()[seen], (visits / decoder.frames)[seen].clamp(0.01, 0.99), atol=1e-5, rtol=0)
    torch.testing.assert_close(leave.exp()[~seen], torch.full((2,), 0.5, dtype=torch.double))


@pytest.mark.parametrize("training", ["full_sum", "baum_welch", "viterbi"])
@pytest.mark.parametrize("flat_steps", [0, 5])
def test_impossible_labels_are_infinite_not_hidden(training, flat_steps):
    decoder = decoder_of(training=training, flat_steps=flat_steps)
    labels, lens = torch.tensor([[1, 1], [1, 0]]), lens_of(3, 3)
    assert decoder.min_frames(labels, lens_of(2, 1)).tolist() == [4, 2]
    for mode in (True, False):
        loss = decoder.train(mode).loss(torch.randn(2, 3, D, dtype=torch.double), lens, labels, lens_of(2, 1))
        assert torch.isinf(loss).tolist() == [True, False]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("n_states", 0, "n_states is at least 1"),
        ("flat_steps", -1, "flat_steps at least 0"),
        ("silence", "maybe", "silence=maybe; choose from: none, ends"),
        ("training", "em", "training=em; choose from: full_sum, baum_welch, viterbi"),
        ("p_loop", 1.0, "p_loop is a probability"),
        ("p_loop", "guessed", "guessed came"),
        ("prior_scale", -0.1, "prior_scale >= 0"),
        ("momentum", 1.0, "momentum in"),
    ],
)
def test_wrong_values_of_the_decoder(key, value, says):
    with pytest.raises(ValueError, match=says):
        HmmDecoder(in_dim=D, n_labels=3, **(VALUES | {key: value}))


# The search

SEARCH = {"acoustic_scale": 0.8, "prior_scale": 0.5, "insertion_penalty": 0.3, "discount": 0.4}
TEXTS = ["a", "b a", "a", "ab b", "b a b"]
WORDS = ["a", "ab", "b"]


def probability(kind: str, words: list[str]) -> float:
    """log p of a sentence by the definition, from counts."""
    sentences = [t.split() for t in TEXTS]
    if kind == "sentence":
        return math.log(TEXTS.count(" ".join(words)) / len(TEXTS)) if " ".join(words) in TEXTS else -math.inf
    every = [w for s in sentences for w in (*s, "</s>")]

    def unigram(w, before):
        return every.count(w) / (len(every) - (len(TEXTS) if before == "<s>" else 0))

    if kind == "loop":
        return sum(math.log(unigram(v, u)) for u, v in itertools.pairwise(["<s>", *words, "</s>"]))
    pairs = [p for s in sentences for p in itertools.pairwise(["<s>", *s, "</s>"])]
    total = 0.0
    for u, v in itertools.pairwise(["<s>", *words, "</s>"]):
        after = [b for a, b in pairs if a == u]
        d = SEARCH["discount"]
        p = max(after.count(v) - d, 0) / len(after) + d * len(set(after)) / len(after) * unigram(v, u)
        total += math.log(p)
    return total


def enumerated(kind: str, decoder, hidden, tokenizer) -> list[tuple[float, list[int], list[list[int]]]]:
    """(score, labels, possible frames) of all that the grammar allows, the best first."""
    scores = SEARCH["acoustic_scale"] * decoder.scaled(decoder.log_probs(hidden)[0].detach(), SEARCH["prior_scale"])
    found = []
    for n in range(1, len(scores) + 1):
        for entries in itertools.product(range(len(tokenizer)) if kind == "free" else WORDS, repeat=n):
            labels = list(entries) if kind == "free" else tokenizer.encode(" ".join(entries))
            states = decoder.n_states * len(labels)
            prior = 0.0 if kind == "free" else probability(kind, list(entries))
            if states <= len(scores) and prior > -math.inf:
                weight, _, starts = best_of(decoder, scores, labels)
                n_costs = 1 if kind == "sentence" else n
                found.append((weight + prior - n_costs * SEARCH["insertion_penalty"], labels, starts))
    return sorted(found, key=lambda f: -f[0])


@pytest.mark.parametrize(("n_states", "silence"), [(1, "ends"), (1, "none"), (2, "ends")])
@pytest.mark.parametrize("kind", ["loop", "bigram", "sentence", "free"])
@pytest.mark.parametrize("spelling", ["char", "words"])
def test_search_is_the_enumeration(kind, n_states, silence, spelling):
    tokenizer = CharTokenizer("ab ") if spelling == "char" else WordTokenizer(WORDS, has_unknown=False)
    u = (5 if spelling == "char" else 4) + (n_states - 1)
    decoder = decoder_of(n_labels=3, n_states=n_states, silence=silence).eval()
    hidden, longer = hidden_of(u), hidden_of(u + 3, seed=5)
    longer[0, :u] = hidden  # what lies behind the end never matters
    want = enumerated(kind, decoder, hidden, tokenizer)
    for beam in (1, 4):
        search = HmmSearch(decoder, tokenizer, TEXTS, beam=beam, grammar=kind, **SEARCH)
        [_, found] = search(longer.expand(2, -1, -1), lens_of(u + 3, u))
        assert len(found) == min(beam, len(want))
        assert [h.score for h in found] == pytest.approx([w[0] for w in want[:beam]])
        assert [h.labels for h in found] == [w[1] for w in want[:beam]]
        assert all(h.frames in w[2] for h, w in zip(found, want, strict=False))
    n = len(want)
    forced = search.force(hidden.expand(n, -1, -1), lens_of(*[u] * n), [w[1] for w in want])
    assert forced == pytest.approx([w[0] for w in want])


def test_what_the_grammar_does_not_know_is_impossible():
    decoder, hidden = decoder_of().eval(), hidden_of(12)
    search = HmmSearch(decoder, CharTokenizer("ab "), TEXTS, beam=1, grammar="loop", **SEARCH)
    for labels in ([], [0, 0], [2, 0], [0, 2, 2, 1]):  # "", "aa", " a", "a  b"
        assert search.force(hidden, lens_of(12), [labels]) == [-math.inf]
    [[found]] = search(hidden_of(1), lens_of(1))  # two states do not fit into one frame
    assert found == ([], -math.inf, [])


@pytest.mark.parametrize("kind", ["loop", "bigram"])
def test_a_grammar_is_a_distribution(kind):
    """After every word, what may follow has probability 1 altogether, the end included."""
    g = make_grammar(kind, CharTokenizer("abc "), [*TEXTS, "c", "a c"], penalty=0.0, discount=0.4)
    n = len(g.spellings)
    assert n == 4
    begin = [g.weight([v]) - float(g.end[v]) for v in range(n)]
    assert sum(map(math.exp, begin)) == pytest.approx(1)
    for u in range(n):
        after = [g.weight([u, v]) - begin[u] - float(g.end[v]) for v in range(n)]
        assert sum(map(math.exp, [*after, float(g.end[u])])) == pytest.approx(1)


def test_words_that_sound_alike_are_one_entry():
    phones = PhoneTokenizer(
        {"too": [("t", "u")], "two": [("t", "u")], "tea": [("t", "i")]}, {"two": 2, "too": 1, "tea": 1}
    )
    g = make_grammar("loop", phones, ["two tea", "too", "two"], penalty=0.0, discount=0.5)
    assert g.spellings == [phones.encode("tea"), phones.encode("two")] and g.join == [0]
    assert g.start.exp().tolist() == pytest.approx([1 / 4, 3 / 4])


def test_history_of_equal_words_is_told_apart():
    """Hashes of a, a a, a a a ... differ, or hypotheses would swallow each other."""
    decoder = decoder_of(n_labels=1, n_states=1, silence="none").eval()
    search = HmmSearch(decoder, WordTokenizer(["a"], False), ["a"], beam=12, grammar="free", **SEARCH)
    [found] = search(hidden_of(10), lens_of(10))
    assert sorted(len(h.labels) for h in found) == list(range(1, 11))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"grammar": "trigram"}, "grammar=trigram; choose from: loop, bigram, sentence, free"),
        ({"beam": 0}, "beam is at least 1"),
        ({"acoustic_scale": 0.0}, "acoustic_scale > 0"),
        ({"prior_scale": -1.0}, "prior_scale >= 0"),
        ({"discount": 1.0}, "discount lies between 0 and 1"),
        ({"train_texts": []}, "hold no word; choose grammar=free"),
        ({"tokenizer": CharTokenizer("ab")}, "no label between words, so .*choose grammar=sentence or free"),
    ],
)
def test_wrong_values_of_the_search(changes, says):
    given = {"tokenizer": CharTokenizer("ab "), "train_texts": TEXTS, "beam": 1, "grammar": "loop"}
    with pytest.raises(ValueError, match=says):
        HmmSearch(decoder_of(), **(given | SEARCH | changes))


def test_a_large_vocabulary_is_refused(monkeypatch):
    monkeypatch.setattr("asr_lab.decoding.hmm.MAX_STATES", 10)
    with pytest.raises(ValueError, match=r"3 entries and 14 states, .*at most 10; choose grammar=free"):
        HmmSearch(decoder_of(), CharTokenizer("ab "), TEXTS, beam=1, grammar="loop", **SEARCH)


@pytest.mark.parametrize(
    ("encoder", "training"),
    [("bilstm", "full_sum"), ("bilstm", "baum_welch"), ("bilstm", "viterbi"), ("conformer", "viterbi")],
)
def test_every_training_learns_by_heart(encoder, training, tones):
    overrides = [f"encoder={encoder}", "decoder=hmm", f"decoder.training={training}", "decoder.flat_steps=5"]
    parts = build(resolved(composed(*tiny(tones, *overrides, "decoder.momentum=0.9", "decoding.grammar=free"))))
    for layer in parts.task.modules():
        if hasattr(layer, "p"):
            layer.p = 0.0
    batch = next(iter(parts.data.loader("train")))
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(parts.task.parameters(), lr=1e-2)
    for _ in range(8):
        parts.task.train()
        for _ in range(15):
            optimizer.zero_grad()
            hidden, lens = parts.task.encode(batch)
            parts.task.decoder.loss(hidden, lens, batch.labels, batch.label_lens).mean().backward()
            torch.nn.utils.clip_grad_norm_(parts.task.parameters(), 1.0)
            optimizer.step()
        parts.task.eval()
        rows = parts.task.transcribe(batch, *parts.task.encode(batch))
        if all(r["hyp"] == r["ref"] for r in rows):
            return
    pytest.fail(f"{[(r['ref'], r['hyp']) for r in rows]}")
