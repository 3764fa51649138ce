"""The Transformer decoder by hand, CTC's prefix scores by enumeration, and the searches that use both."""

import functools
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr_lab.build import build_search, call
from asr_lab.decoders.transformer import TransformerDecoder
from asr_lab.layers.ctc_prefix_scorer import CtcPrefixScorer
from asr_lab.sweep.cell import resolved
from asr_lab.text.tokenizer import CharTokenizer

from .conftest import composed

D, V = 6, 3
SIZES = {"d_model": 8, "n_layers": 2, "n_heads": 2, "ff_expansion": 2, "dropout": 0.0}


def transformer(seed: int = 0, **changes) -> TransformerDecoder:
    torch.manual_seed(seed)
    return TransformerDecoder(D, V, **{**SIZES, "label_smoothing": 0.0, "tied": False, **changes}).eval()


def batch(seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(V, (3, 4), generator=g)
    return torch.randn(3, 9, D, generator=g), torch.tensor([9, 5, 7]), labels, torch.tensor([4, 1, 3])


# The Transformer decoder


def loss_by_hand(model: TransformerDecoder, hidden: Tensor, labels: list[int]) -> float:
    """One utterance, one position after the other, in float64, from the weights and the formulas of the paper."""
    w = {k: v.double() for k, v in model.state_dict().items()}
    d, n_heads = SIZES["d_model"], SIZES["n_heads"]

    def linear(name: str, x: Tensor) -> Tensor:
        y = x @ w[f"{name}.weight"].T
        return y + w[f"{name}.bias"] if f"{name}.bias" in w else y

    def norm(name: str, x: Tensor) -> Tensor:
        x = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attend(name: str, x: Tensor, keys: list[Tensor]) -> Tensor:
        q = linear(f"{name}.linear_q", x).view(n_heads, -1)
        ks = [linear(f"{name}.linear_k", k).view(n_heads, -1) for k in keys]
        vs = [linear(f"{name}.linear_v", k).view(n_heads, -1) for k in keys]
        heads = []
        for h in range(n_heads):
            weights = torch.stack([q[h] @ k[h] / math.sqrt(d / n_heads) for k in ks]).softmax(0)
            heads.append(sum(a * v[h] for a, v in zip(weights, vs, strict=True)))
        return linear(f"{name}.linear_out", torch.cat(heads))

    frames = list(hidden.double())
    below: list[list[Tensor]] = [[] for _ in range(SIZES["n_layers"])]
    loss = 0.0
    for i, (said, then) in enumerate(zip([V, *labels], [*labels, V], strict=True)):
        waves = [i / 10_000 ** (k // 2 * 2 / d) for k in range(d)]
        place = torch.tensor([math.cos(a) if k % 2 else math.sin(a) for k, a in enumerate(waves)])
        x = w["embed.weight"][said] + place.double()
        for n in range(SIZES["n_layers"]):
            below[n].append(norm(f"layers.{n}.norm_self", x))
            x = x + attend(f"layers.{n}.self_attn", below[n][-1], below[n])
            x = x + attend(f"layers.{n}.cross_attn", norm(f"layers.{n}.norm_cross", x), frames)
            y = linear(f"layers.{n}.feed_forward.0", norm(f"layers.{n}.norm_feed_forward", x)).relu()
            x = x + linear(f"layers.{n}.feed_forward.3", y)
        loss -= float(linear("output", norm("norm_out", x)).log_softmax(0)[then])
    return loss


def test_transformer_loss_by_hand():
    model = transformer()
    hidden, lens, labels, label_lens = batch()
    want = [loss_by_hand(model, hidden[i, : lens[i]], labels[i, : label_lens[i]].tolist()) for i in range(3)]
    assert model.loss(hidden, lens, labels, label_lens).tolist() == pytest.approx(want, rel=1e-5)


def test_label_smoothing_is_of_training_alone():
    """With a share e, the target of the right label is 1 - e + e/K and that of each other e/K."""
    plain, smoothed = transformer(), transformer(label_smoothing=0.2)
    smoothed.load_state_dict(plain.state_dict())
    hidden, lens, labels, label_lens = batch()
    assert torch.equal(plain.loss(*batch()), smoothed.loss(*batch()))
    log_probs, _ = plain.posteriors(hidden, lens, labels, label_lens)
    target = torch.full((V + 1,), 0.2 / (V + 1))
    want = 0.0
    for place, label in enumerate([int(labels[1, 0]), V]):  # the second utterance has one label
        target_here = target + 0.8 * torch.nn.functional.one_hot(torch.tensor(label), V + 1)
        want -= (target_here @ log_probs[1, place]).item()
    assert smoothed.train().loss(*batch())[1].item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_label_after_label_equals_all_at_once(tied):
    """Hypotheses are copied, dropped, mixed and put into another order on the way."""
    model = transformer(tied=tied)
    hidden, lens, *_ = batch()
    sequences = torch.randint(V, (3, 4), generator=torch.Generator().manual_seed(5))
    state = model.begin(hidden, lens)
    state = model.select(state, torch.tensor([0, 0, 1, 1, 2, 2]))  # two each
    owners, said = [0, 0, 1, 1, 2, 2], [[] for _ in range(6)]
    for rows in ([1, 0, 3, 2, 4, 4], [0, 1, 4, 5], [3, 1, 0, 2], [2]):
        for row, history in enumerate(said):
            history.append(int(sequences[row % 3, len(history)]))
        state = model.advance(state, torch.tensor([h[-1] for h in said]))
        state = model.select(state, torch.tensor(rows))
        owners, said = [owners[r] for r in rows], [list(said[r]) for r in rows]
        here = torch.tensor(owners)
        labels, n = torch.tensor(said), torch.full((len(said),), len(said[0]))
        want, valid = model.posteriors(hidden[here], lens[here], labels, n)
        assert valid.all()
        torch.testing.assert_close(model.scores(state), want[:, -1], atol=1e-5, rtol=1e-5)


def test_tied_weights_are_one_matrix():
    model = transformer(tied=True)
    assert model.output.weight is model.embed.weight
    assert sum(p.numel() for p in transformer().parameters()) > sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"n_heads": 3}, "n_heads=3"), ({"label_smoothing": 1.0}, "label_smoothing"), ({"n_layers": 0}, "n_layers")],
)
def test_sizes_that_cannot_be(changes, says):
    with pytest.raises(ValueError, match=says):
        transformer(**changes)


# CTC's prefix scores


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(k - 1 for k, _ in itertools.groupby(path) if k)


def labellings(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """p of every label sequence, from all paths of (U,V+1) in float64"""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=log_probs.shape[0]):
        labels = collapse(path)
        found[labels] = found.get(labels, 0.0) + math.exp(sum(log_probs[t, k].item() for t, k in enumerate(path)))
    return found


def frames_of(n: int, n_classes: int, seed: int = 0, n_utterances: int = 1) -> Tensor:
    logits = 2 * torch.randn(n_utterances, n, n_classes, generator=torch.Generator().manual_seed(seed)).double()
    return logits.log_softmax(dim=-1)


def test_prefix_scores_are_sums_over_all_that_begin_so():
    lens, log_probs = [5, 3], frames_of(5, 3, n_utterances=2)
    log_probs[1, 3:] = float("nan")  # what lies in the padding is not read
    tables = [labellings(log_probs[i, :n]) for i, n in enumerate(lens)]
    scorer = CtcPrefixScorer()

    def psi(table: dict, prefix: tuple) -> float:
        return sum(p for labels, p in table.items() if labels[: len(prefix)] == prefix)

    def visit(state, prefix: tuple) -> int:
        scores = scorer.scores(state)
        for i, table in enumerate(tables):
            before = psi(table, prefix)
            want = [psi(table, (*prefix, c)) for c in range(2)] + [table.get(prefix, 0.0)]
            want = [math.log(w / before) if w else -math.inf for w in want]
            assert scores[i].tolist() == pytest.approx(want, abs=1e-5)
        if len(prefix) == 5:
            return 1
        return 1 + sum(visit(scorer.advance(state, torch.full((2,), c)), (*prefix, c)) for c in range(2))

    assert visit(scorer.begin(log_probs, torch.tensor(lens)), ()) == 63


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 3), max_size=6), st.integers(7, 30), st.floats(0.1, 30.0))
def test_what_comes_next_has_probability_one(seed, said, n_frames, sharpness):
    """A prefix goes on in one of V ways or ends."""
    log_probs = (sharpness * frames_of(n_frames, 5, seed)).log_softmax(dim=-1)
    scorer = CtcPrefixScorer()
    state = scorer.begin(log_probs, torch.tensor([n_frames]))
    for label in said:
        state = scorer.advance(state, torch.tensor([label]))
        if state.log_psi[0] > -math.inf:  # as many frames as repeated labels need
            assert scorer.scores(state).double().logsumexp(dim=1).item() == pytest.approx(0, abs=1e-4)


def test_prefix_scores_of_an_hour_of_frames_are_exact():
    """Running sums of 20,000 frames; all of a sentence's parts sum to its log-probability."""
    log_probs, labels = (4 * frames_of(20_000, 5)).log_softmax(dim=-1), [0, 0, 3, 1]
    scorer, total = CtcPrefixScorer(), 0.0
    state = scorer.begin(log_probs, torch.tensor([20_000]))
    for label in [*labels, 4]:
        total += scorer.scores(state)[0, label].double().item()
        if label < 4:
            state = scorer.advance(state, torch.tensor([label]))
    loss = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), torch.tensor([labels]) + 1, [20_000], [len(labels)], reduction="sum"
    )
    assert total == pytest.approx(-loss.item(), rel=1e-6)


def test_prefix_states_follow_their_hypotheses():
    log_probs, scorer = frames_of(6, 4, n_utterances=2), CtcPrefixScorer()
    lens = torch.tensor([6, 4])
    state = scorer.select(scorer.begin(log_probs, lens), torch.tensor([0, 0, 1, 1]))
    state = scorer.advance(state, torch.tensor([0, 1, 2, 1]))
    mixed = scorer.advance(scorer.select(state, torch.tensor([3, 0, 1])), torch.tensor([1, 0, 2]))
    for row, (owner, said) in enumerate([(1, [1, 1]), (0, [0, 0]), (0, [1, 2])]):
        alone = scorer.begin(log_probs[owner : owner + 1], lens[owner : owner + 1])
        for label in said:
            alone = scorer.advance(alone, torch.tensor([label]))
        torch.testing.assert_close(scorer.scores(mixed)[row], scorer.scores(alone)[0])


# Both together


@functools.cache
def config_of(*overrides: str) -> dict:
    return resolved(composed(*overrides))


def small(*overrides: str, decoder: str = "joint", seed: int = 0):
    """(decoder, search) over the labels a, b with 5 encoder features"""
    sizes = {"joint": ["d_model=8", "n_layers=1", "n_heads=2"], "joint_lstm": ["d_hidden=8"]}[decoder]
    config = config_of(f"decoder={decoder}", *(f"decoder.attention.{s}" for s in sizes), *overrides)
    torch.manual_seed(seed)
    model = call(config, "decoder", in_dim=5, n_labels=2).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(2)
    return model, build_search(config, model, CharTokenizer("ab"), [])[0]


def every_sequence(longest: int) -> list[list[int]]:
    return [list(s) for n in range(longest + 1) for s in itertools.product(range(2), repeat=n)]


def parts_of(model, hidden: Tensor, labels: list[int]) -> tuple[float, float]:
    """(log p by CTC, log p by the attention decoder) of one utterance"""
    lens, label_lens = torch.tensor([hidden.shape[1]]), torch.tensor([len(labels)])
    log_probs = model.log_probs(hidden)[0].detach().double()
    ctc = labellings(log_probs).get(tuple(labels), 0.0)
    attention = -model.attention.loss(hidden, lens, torch.tensor([labels], dtype=torch.long), label_lens).item()
    return math.log(ctc) if ctc else -math.inf, attention


@pytest.mark.parametrize("decoder", ["joint", "joint_lstm"])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.quick(2)
def test_a_wide_joint_beam_finds_the_best_of_all_sequences(decoder, weight):
    for seed in range(3):
        model, search = small(f"decoding.ctc_weight={weight}", "decoding.beam=40", decoder=decoder, seed=seed)
        hidden = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(seed))
        known = {}
        for labels in every_sequence(4):
            ctc, attention = parts_of(model, hidden, labels)
            known[tuple(labels)] = (weight * ctc if weight else 0) + (1 - weight) * attention
        [found] = search(hidden, torch.tensor([4]))
        best = max(known, key=known.__getitem__)
        assert tuple(found[0].labels) == best
        for h in found:
            assert h.score == pytest.approx(known[tuple(h.labels)], abs=1e-4)
        assert sum(p > -math.inf for p in known.values()) >= len(found) > 10


def test_rescoring_gives_ctcs_candidates_the_joint_order():
    changed = 0
    for seed in range(4):
        model, search = small("decoding=attention_rescoring", "decoding.beam=6", "decoding.ctc_weight=0.4", seed=seed)
        hidden = torch.randn(1, 5, 5, generator=torch.Generator().manual_seed(seed))
        [found] = search(hidden, torch.tensor([5]))
        for h in found:
            ctc, attention = parts_of(model, hidden, h.labels)
            assert h.score == pytest.approx(0.4 * ctc + 0.6 * attention, abs=1e-4)
        [first] = small("decoding=ctc", "decoding.beam=6", seed=seed)[1](hidden, torch.tensor([5]))
        assert len({tuple(h.labels) for h in first} & {tuple(h.labels) for h in found}) >= len(first) - 1
        changed += first[0].labels != found[0].labels
    assert changed


def test_the_joint_loss_is_the_weighted_sum():
    model, _ = small("decoder.ctc_weight=0.2")
    given = torch.randn(2, 8, 5), torch.tensor([8, 6]), torch.tensor([[0, 1], [1, 0]]), torch.tensor([2, 1])
    total, ctc, attention = model.loss(*given), model.ctc.loss(*given), model.attention.loss(*given)
    torch.testing.assert_close(total, 0.2 * ctc + 0.8 * attention)
    assert torch.equal(model.terms["ctc"], ctc) and torch.equal(model.terms["attention"], attention)
    assert not model.terms["ctc"].requires_grad


def test_a_joint_decoder_needs_the_frames_that_ctc_needs_and_aligns_with_it():
    model, _ = small()
    labels, n = torch.tensor([[0, 0, 1]]), torch.tensor([3])
    assert model.min_frames(labels, n).tolist() == [4]
    hidden, lens = torch.randn(1, 9, 5), torch.tensor([9])
    assert model.align(hidden, lens, labels, n) == model.ctc.align(hidden, lens, labels, n)
    assert [span.label for span in model.align(hidden, lens, labels, n)[0]] == [0, 0, 1]


def test_the_parts_of_joint_are_what_they_are_alone():
    assert composed("decoder=joint").decoder.attention == composed("decoder=transformer").decoder
    assert composed("decoder=joint_lstm").decoder.attention == composed("decoder=attention").decoder
    for joint in ("joint", "joint_lstm"):
        assert composed(f"decoder={joint}").decoder.ctc == composed("decoder=ctc").decoder


@pytest.mark.parametrize("decoding", ["joint", "attention_rescoring"])
@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["decoder=ctc"], "CtcDecoder has not both; choose decoder=joint"),
        (["decoder=transformer"], "TransformerDecoder has not both"),
        (["decoder=joint", "decoding.ctc_weight=1.5"], "ctc_weight is a share"),
        (["decoder=joint", "decoding.beam=0"], "beam must be at least 1"),
    ],
)
def test_searches_that_cannot_be(decoding, overrides, says):
    config = resolved(composed(f"decoding={decoding}", *overrides))
    model = call(config, "decoder", in_dim=5, n_labels=2)
    with pytest.raises(ValueError, match=says):
        build_search(config, model, CharTokenizer("ab"), [])


@pytest.mark.parametrize("weight", [0, 1])
def test_a_joint_decoder_of_one_part_is_refused(weight):
    with pytest.raises(ValueError, match="ctc_weight is a share between 0 and 1"):
        small(f"decoder.ctc_weight={weight}")
