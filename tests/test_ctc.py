"""CTC: sums, alignments and searches against enumeration; prior, entropy and losses inside the encoder by hand."""

import copy
import functools
import itertools
import math
import pickle
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.build import call, make
from asr_lab.decoders.ctc import CtcDecoder
from asr_lab.decoders.ctc_inter import InterCtcDecoder
from asr_lab.decoding.ctc import CtcSearch
from asr_lab.errors import ConfigError, DataError
from asr_lab.layers.ctc_alignments import log_likelihood, viterbi
from asr_lab.layers.ctc_prefixes import PrefixSearch
from asr_lab.layers.states import replaced
from asr_lab.lm import Fusion, NoFusion
from asr_lab.sweep.cell import resolved
from asr_lab.text.tokenizer import CharTokenizer

from .conftest import composed

V, U = 3, 5


def new(kind=CtcDecoder, in_dim: int = 5, n_labels: int = V, **keys):
    values = {"dropout": 0.0, "loss_on_cpu": False, "entropy_weight": 0.0, "prior_decay": 0.9} | keys
    torch.manual_seed(0)
    return kind(in_dim=in_dim, n_labels=n_labels, **values).eval()


@pytest.fixture
def decoder() -> CtcDecoder:
    return new()


class Given:
    """Stands for a decoder; what it is asked about is the answer."""

    def log_probs(self, hidden):
        return hidden


def search(decoder, lm=None, **keys):
    values = {
        "beam": 1,
        "n_tokens": 100,
        "min_log_prob": -math.inf,
        "beam_threshold": math.inf,
        "prior_weight": 0.0,
    } | keys
    return CtcSearch(decoder, lm or NoFusion(), **values)


def random_log_probs(*shape: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).log_softmax(dim=-1)


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(k - 1 for k, _ in itertools.groupby(path) if k)


def enumerated(log_probs: torch.Tensor) -> dict[tuple[int, ...], list[tuple[float, tuple[int, ...]]]]:
    """Every labelling of (U,V+1), with the score of each of its paths."""
    rows, found = log_probs.double().tolist(), {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(rows)):
        score = sum(row[k] for row, k in zip(rows, path, strict=True))
        found.setdefault(collapse(path), []).append((score, path))
    return found


def summed(paths: list[tuple[float, tuple[int, ...]]]) -> float:
    return torch.tensor([score for score, _ in paths], dtype=torch.float64).logsumexp(dim=0).item()


class TestLoss:
    @pytest.mark.parametrize("labels", [[0], [0, 0], [0, 1], [2, 2, 1], [1, 0, 1]])
    def test_is_the_sum_over_all_paths(self, decoder, labels):
        hidden = torch.randn(1, U, 5, generator=torch.Generator().manual_seed(1))
        want = summed(enumerated(decoder.log_probs(hidden)[0])[tuple(labels)])
        got = decoder.loss(hidden, torch.tensor([U]), torch.tensor([labels]), torch.tensor([len(labels)]))
        assert got.item() == pytest.approx(-want, abs=1e-5)

    def test_of_a_batch_is_the_loss_of_each(self, decoder):
        hidden = torch.randn(2, 6, 5)
        labels = torch.tensor([[0, 1, 2], [1, 0, 0]])
        together = decoder.loss(hidden, torch.tensor([6, 3]), labels, torch.tensor([3, 1]))
        alone = [
            decoder.loss(hidden[:1], torch.tensor([6]), labels[:1], torch.tensor([3])),
            decoder.loss(hidden[1:, :3], torch.tensor([3]), labels[1:, :1], torch.tensor([1])),
        ]
        torch.testing.assert_close(together, torch.cat(alone))

    def test_impossible_labels_are_infinite_not_hidden(self, decoder):
        loss = decoder.loss(torch.randn(1, 2, 5), torch.tensor([2]), torch.tensor([[1, 1]]), torch.tensor([2]))
        assert torch.isinf(loss).all()

    def test_on_cpu_is_the_same_loss(self, decoder):
        args = (torch.randn(1, 6, 5), torch.tensor([6]), torch.tensor([[0, 1]]), torch.tensor([2]))
        usual = decoder.loss(*args)
        decoder.loss_on_cpu = True
        assert torch.equal(decoder.loss(*args), usual)

    def test_min_frames_counts_repeats(self, decoder):
        labels = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0], [2, 2, 2, 2]])
        assert decoder.min_frames(labels, torch.tensor([4, 2, 3])).tolist() == [6, 2, 5]

    def test_entropy_by_hand(self):
        model = new(entropy_weight=0.3)
        args = (torch.randn(2, 6, 5), torch.tensor([6, 4]), torch.tensor([[0, 1], [2, 0]]), torch.tensor([2, 1]))
        plain = model.loss(*args)
        assert model.terms == {}  # in evaluation: the likelihood alone
        loss = model.train().loss(*args)
        p = model.log_probs(args[0]).double().exp()
        entropy = torch.stack([-(p[i, :n] * p[i, :n].log()).sum() for i, n in enumerate((6, 4))]).float()
        torch.testing.assert_close(loss, plain - 0.3 * entropy)
        torch.testing.assert_close(model.terms, {"ctc": plain, "entropy": entropy})

    @pytest.mark.parametrize(("key", "value"), [("entropy_weight", -0.1), ("prior_decay", 1.0), ("prior_decay", -0.1)])
    def test_bad_keys(self, key, value):
        with pytest.raises(ValueError, match=key):
            new(**{key: value})


class TestAlignments:
    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 10**6), st.integers(1, U))
    def test_sum_and_best_of_every_labelling(self, seed, length):
        """In one call for all of them; scores need not be normalised."""
        log_probs = random_log_probs(1, U, V + 1, seed=seed) + 0.5
        known = enumerated(log_probs[0, :length])
        labellings = list(known)
        label_lens = torch.tensor([len(k) for k in labellings])
        labels = torch.zeros(len(known), U, dtype=torch.long)
        for row, labelling in zip(labels, labellings, strict=True):
            row[: len(labelling)] = torch.tensor(labelling, dtype=torch.long) + 1
        args = (torch.tensor([length]), labels, label_lens, torch.zeros(len(known), dtype=torch.long))
        got = log_likelihood(log_probs, *args)
        assert got.tolist() == pytest.approx([summed(known[k]) for k in labellings], abs=1e-4)
        for labelling, states in zip(labellings, viterbi(log_probs, *args).tolist(), strict=True):
            classes = tuple(labelling[s // 2] + 1 if s % 2 else 0 for s in states[:length])
            score = sum(log_probs[0, t, k].item() for t, k in enumerate(classes))
            assert collapse(classes) == labelling
            assert score == pytest.approx(max(known[labelling])[0], abs=1e-4)
            assert set(states[length:]) <= {2 * len(labelling)}

    def test_sum_stays_right_where_products_underflow(self):
        """As many labels as frames, each of them all but impossible, beside a path that is certain."""
        n = 150
        log_probs = torch.full((1, n, 3), -12.0)
        log_probs[..., 0] = 0
        labels = torch.arange(n)[None] % 2 + 1
        got = log_likelihood(log_probs, torch.tensor([n]), labels, torch.tensor([n]), torch.tensor([0]))
        assert got.item() == pytest.approx(-12.0 * n)

    def test_sum_of_flat_frames_does_not_overflow(self):
        log_probs = torch.zeros(1, 1200, 3).log_softmax(dim=-1)
        labels = torch.arange(300)[None] % 2 + 1
        lens, label_lens = torch.tensor([1200]), torch.tensor([300])
        want = -torch.nn.functional.ctc_loss(
            log_probs.double().transpose(0, 1), labels, lens, label_lens, reduction="sum"
        )
        got = log_likelihood(log_probs, lens, labels, label_lens, torch.tensor([0]))
        assert got.item() == pytest.approx(want.item(), abs=1e-2)

    def test_impossible_is_minus_infinity(self):
        log_probs = random_log_probs(2, 4, V + 1)
        labels, rows = torch.tensor([[1, 1, 2], [1, 2, 0]]), torch.tensor([1, 0])
        got = log_likelihood(log_probs, torch.tensor([4, 3]), labels, torch.tensor([3, 2]), rows)
        assert torch.isinf(got).tolist() == [True, False]

    def test_align_is_torchaudios(self, decoder):
        """Of utterances of several lengths at once."""
        hidden, lens = torch.randn(4, 20, 5, generator=torch.Generator().manual_seed(2)), torch.tensor([20, 13, 9, 20])
        labels = torch.randint(V, (4, 6), generator=torch.Generator().manual_seed(3))
        label_lens = torch.tensor([6, 4, 1, 0])
        for i, spans in enumerate(decoder.align(hidden, lens, labels, label_lens)):
            known, n = labels[i, : label_lens[i]], int(lens[i])
            assert [span.label for span in spans] == known.tolist()
            classes = torch.zeros(n, dtype=torch.long)
            log_probs = decoder.log_probs(hidden[i : i + 1, :n])
            for span in spans:
                classes[span.start : span.end] = span.label + 1
                mean = log_probs[0, span.start : span.end, span.label + 1].mean()
                assert span.score == pytest.approx(mean.item(), abs=1e-5)
            if len(known):
                [want], _ = torchaudio.functional.forced_align(log_probs, known[None].int() + 1)
                assert torch.equal(classes, want.long())

    def test_align_without_room_is_one_line(self, decoder):
        with pytest.raises(DataError, match="need 3 encoder frames, the utterance has 2"):
            decoder.align(torch.randn(1, 2, 5), torch.tensor([2]), torch.tensor([[1, 1]]), torch.tensor([2]))

    def test_posteriors(self, decoder):
        hidden = torch.randn(2, 4, 5)
        log_probs, valid = decoder.posteriors(hidden, torch.tensor([4, 2]), torch.zeros(2, 1), torch.ones(2))
        assert torch.equal(log_probs, decoder.log_probs(hidden)) and valid.sum(dim=1).tolist() == [4, 2]


class TestBestPath:
    def test_merges_repeats_and_drops_blanks(self):
        path = [0, 1, 1, 0, 1, 2, 2, 3, 0, 3]
        log_probs = torch.nn.functional.one_hot(torch.tensor([path, path]), 4).float().log()
        [full], [short] = search(Given())(log_probs, torch.tensor([10, 3]))
        assert full.labels == [0, 0, 1, 2, 2]
        assert full.score == 0.0
        assert full.frames == [1, 4, 5, 7, 9]
        assert short.labels == [0]  # what lies beyond the length is not read

    def test_score_is_the_score_of_its_path(self, decoder):
        hidden = torch.randn(3, 7, 5)
        lens = torch.tensor([7, 4, 1])
        best = decoder.log_probs(hidden).max(dim=-1).values
        for i, [hyp] in enumerate(search(decoder)(hidden, lens)):
            assert hyp.score == pytest.approx(best[i, : lens[i]].sum().item(), rel=1e-5)


class TableState(NamedTuple):
    last: torch.Tensor  # (N,)
    sums: list[torch.Tensor]  # of (1, N, 2): hypotheses not in front
    kind: str


class Table:
    """A bigram with a state as a recurrent model has it."""

    def __init__(self, tokenizer=None, n=V):
        table = 2 * torch.randn(n + 1, n + 1, generator=torch.Generator().manual_seed(3))
        self.table = table.log_softmax(dim=-1)  # row V: at the beginning

    def begin(self, n, device):
        return TableState(torch.full((n,), len(self.table) - 1), [torch.zeros(1, n, 2)], "table")

    def scores(self, state):
        return self.table[state.last]

    def advance(self, state, labels):
        assert (labels >= 0).all()
        return state._replace(last=labels, sums=[state.sums[0] + labels[None, :, None]])

    def select(self, state, rows):
        return TableState(state.last[rows], [state.sums[0][:, rows]], state.kind)


def fusion(weight=0.8, bonus=0.1) -> Fusion:
    return Fusion(CharTokenizer("abc"), [], functools.partial(Table), weight=weight, bonus=bonus, use="fusion")


def frame_by_frame(frames: list[list[float]], least: float) -> dict[tuple[int, ...], float]:
    """Every prefix's sum, its two numbers (ends in a blank, in its last label) moved on one frame at a time"""
    prefixes: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for frame in frames:
        moved: dict[tuple[int, ...], tuple[float, float]] = {}

        def gain(prefix, blank, label, moved=moved):
            before = moved.get(prefix, (-math.inf, -math.inf))
            moved[prefix] = (float(np.logaddexp(before[0], blank)), float(np.logaddexp(before[1], label)))

        for prefix, (blank, label) in prefixes.items():
            both = float(np.logaddexp(blank, label))
            gain(prefix, both + frame[0], label + frame[prefix[-1] + 1] if prefix else -math.inf)
            for k, score in enumerate(frame[1:]):
                if score >= least and (from_there := blank if prefix and prefix[-1] == k else both) > -math.inf:
                    gain((*prefix, k), -math.inf, from_there + score)
        prefixes = moved
    return {prefix: float(np.logaddexp(*sums)) for prefix, sums in prefixes.items()}


class TestPrefixSearch:
    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 10**6), st.integers(1, U), st.booleans())
    def test_a_huge_beam_finds_every_labelling(self, seed, length, with_lm):
        """Each once, with its sum: nothing is lost or counted twice where prefixes merge."""
        log_probs = random_log_probs(1, U, V + 1, seed=seed)
        known = {k: summed(paths) for k, paths in enumerated(log_probs[0, :length]).items()}
        lm = fusion() if with_lm else None
        if lm:
            shares = lm.total([list(k) for k in known], torch.device("cpu")).tolist()
            known = {k: score + share for (k, score), share in zip(known.items(), shares, strict=True)}
        prefixes = PrefixSearch(600, 10, -math.inf, lm)(log_probs, torch.tensor([length]))
        found = {tuple(k): i for i, k in enumerate(prefixes.sequences()[0])}
        assert found.keys() == known.keys()
        scores = [s for s in prefixes.scores[0].tolist() if s > -math.inf]
        assert sorted(scores) == pytest.approx(sorted(known.values()), abs=1e-3)
        [n_best] = search(Given(), lm, beam=600)(log_probs, torch.tensor([length]))
        assert tuple(n_best[0].labels) == max(known, key=known.__getitem__)
        assert n_best[0].score == pytest.approx(max(known.values()), abs=1e-4)

    @settings(max_examples=6, deadline=None)
    @given(st.integers(0, 10**6), st.floats(-4.0, -0.05), st.booleans())
    def test_frames_that_add_nothing_are_passed_over_together(self, seed, least, with_lm):
        """As frame by frame, whatever stands beside in the batch."""
        log_probs = random_log_probs(4, 9, V + 1, seed=seed, scale=4.0)
        lens = torch.tensor([9, 4, 1, 7])
        lm = fusion() if with_lm else None
        found = PrefixSearch(4000, 10, least, lm)(log_probs, lens)
        for i, sequences in enumerate(found.sequences()):
            known = frame_by_frame(log_probs[i, : lens[i]].tolist(), least)
            shares = lm.total([list(k) for k in known], torch.device("cpu")).tolist() if lm else [0.0] * len(known)
            known = {k: score + share for (k, score), share in zip(known.items(), shares, strict=True)}
            scores = [score for score in found.scores[i].tolist() if score > -math.inf]
            assert {tuple(k): pytest.approx(s, abs=1e-3) for k, s in zip(sequences, scores, strict=True)} == known

    def test_a_threshold_drops_what_is_far_behind(self):
        log_probs, lens = random_log_probs(2, U, V + 1, seed=2), torch.tensor([U, 4])
        for all_found, near in zip(
            search(Given(), beam=600)(log_probs, lens),
            search(Given(), beam=600, beam_threshold=3.0)(log_probs, lens),
            strict=True,
        ):
            assert near == [h for h in all_found if h.score > all_found[0].score - 3] and len(near) < len(all_found)

    def test_merging_finds_what_no_single_path_shows(self):
        """Graves 2012, figure 7.6: the best path is blank twice, the best labelling is a label."""
        log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
        lens = torch.tensor([2])
        assert search(Given())(log_probs, lens)[0][0].labels == []
        best, second = search(Given(), beam=2)(log_probs, lens)[0]
        assert (best.labels, second.labels) == ([0], [])
        assert best.score == pytest.approx(math.log(0.64)) and second.score == pytest.approx(math.log(0.36))

    def test_golden_hypotheses(self):
        log_probs = random_log_probs(2, 12, 6, seed=4)
        first, second = search(Given(), beam=4, n_tokens=3, min_log_prob=-5.0)(log_probs, torch.tensor([12, 8]))
        assert [h.labels for h in first] == GOLDEN[0]
        assert [h.labels for h in second] == GOLDEN[1]

    def test_frames_are_those_of_the_alignment(self, decoder):
        hidden, lens = torch.randn(2, 15, 5, generator=torch.Generator().manual_seed(5)), torch.tensor([15, 11])
        for i, n_best in enumerate(search(decoder, beam=5)(hidden, lens)):
            assert all(found.frames is None for found in n_best[1:])
            for found in n_best[:1]:
                args = (hidden[i : i + 1], lens[i : i + 1], torch.tensor([found.labels]))
                [spans] = decoder.align(*args, torch.tensor([len(found.labels)]))
                assert found.frames == [span.start for span in spans]

    def test_pruning_only_keeps_labels_from_being_added(self):
        """A label that is too unlikely to begin may go on where it has begun."""
        p = torch.tensor([[[0.05, 0.9, 0.05], [0.96, 0.03, 0.01], [0.05, 0.9, 0.05]]])
        pruned = search(Given(), beam=8, min_log_prob=math.log(0.04))
        n_best = pruned(p.log(), torch.tensor([3]))[0]
        sums = {tuple(h.labels): h.score for h in n_best}
        assert sums[(0,)] == pytest.approx(pruned.force(p.log(), torch.tensor([3]), [[0]])[0])
        assert set(sums) == {(), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)}
        few = search(Given(), beam=8, n_tokens=1)(p.log(), torch.tensor([3]))[0]
        assert all(1 not in h.labels for h in few)

    def test_greedy_is_a_candidate_though_all_is_pruned(self):
        log_probs = torch.tensor([[[0.3, 0.4, 0.3]]]).log()
        n_best = search(Given(), beam=4, min_log_prob=math.log(0.5))(log_probs, torch.tensor([1]))[0]
        assert [h.labels for h in n_best] == [[0], []]

    def test_one_hypothesis_listens_to_the_language_model(self):
        log_probs = random_log_probs(4, 12, V + 1, seed=1, scale=1.0)
        lens = torch.tensor([12, 9, 10, 12])
        alone, with_it = (search(Given(), lm)(log_probs, lens) for lm in (None, fusion(weight=4.0)))
        assert all(len(found) == 1 for found in with_it)
        assert [f[0].labels for f in alone] != [f[0].labels for f in with_it]

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("beam", 0),
            ("n_tokens", 0),
            ("min_log_prob", 0.0),
            ("min_log_prob", math.nan),
            ("beam_threshold", 0.0),
            ("prior_weight", -1.0),
        ],
    )
    def test_bad_keys(self, decoder, key, value):
        with pytest.raises(ValueError, match=key):
            search(decoder, **{key: value})


GOLDEN = [
    [[0, 3, 4, 3, 0, 4, 0, 0], [0, 3, 4, 3, 0, 4, 0, 4], [0, 4, 3, 4, 3, 0, 4, 0, 0], [0, 3, 1, 4, 3, 0, 4, 0, 0]],
    [[0, 2, 1, 4, 1, 4, 0, 1], [0, 2, 1, 4, 1, 4, 0, 4], [0, 2, 1, 4, 1, 0, 1], [1, 2, 1, 4, 1, 4, 0, 1]],
]


class TestStates:
    def test_rows_are_replaced_wherever_their_axis_is(self):
        lm = Table()
        state, part = lm.begin(4, torch.device("cpu")), lm.begin(2, torch.device("cpu"))
        part = lm.advance(part, torch.tensor([1, 2]))
        got = replaced(lm, state, part, torch.tensor([0, 3]))
        assert got.last.tolist() == [1, V, V, 2] and got.sums[0][0, :, 0].tolist() == [1, 0, 0, 2]
        assert state.last.tolist() == [V] * 4, "states are not changed in place"

    @pytest.mark.parametrize(
        ("state", "part"),
        [((torch.zeros(4, 3), 3), (torch.zeros(2, 3), 4)), (torch.zeros(4, 3, 8), torch.zeros(2, 4, 8))],
    )
    def test_lengths_that_do_not_fit_are_one_line(self, state, part):
        with pytest.raises(ValueError, match="side by side"):
            replaced(None, state, part, torch.tensor([0, 1]))

    def test_a_model_may_say_how(self):
        class Own:
            def replaced(self, state, part, rows):
                return "own"

        assert replaced(Own(), 1, 2, torch.tensor([0])) == "own"


class TestPrior:
    def batch(self, seed):
        hidden = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(seed))
        return hidden, torch.tensor([6, 4]), torch.tensor([[0, 1], [2, 0]]), torch.tensor([2, 1])

    def test_is_a_running_mean_over_valid_frames(self, decoder):
        decoder.train()
        means = []
        for seed in range(3):
            batch = self.batch(seed)
            decoder.loss(*batch)
            p = decoder.log_probs(batch[0]).exp()
            means.append(torch.cat([p[0], p[1, :4]]).mean(dim=0))
        want = 0.9 * (0.9 * means[0] + 0.1 * means[1]) + 0.1 * means[2]
        torch.testing.assert_close(decoder.log_prior().exp(), want.detach())
        decoder.eval().loss(*self.batch(9))
        torch.testing.assert_close(decoder.prior, want.detach())
        decoder.train().loss(torch.full((2, 6, 5), math.nan), *self.batch(0)[1:])
        torch.testing.assert_close(decoder.prior, want.detach())

    @pytest.mark.parametrize("beam", [1, 4])
    def test_is_taken_off(self, decoder, beam):
        decoder.prior.copy_(torch.tensor([0.7, 0.2, 0.1, 0.0]))
        hidden, lens, *_ = self.batch(1)
        scores = decoder.log_probs(hidden) - 0.4 * torch.tensor([0.7, 0.2, 0.1, 1.1754943508222875e-38]).log()
        with_it = search(decoder, beam=beam, prior_weight=0.4)
        want = search(Given(), beam=beam)(scores.detach(), lens)
        for found, known in zip(with_it(hidden, lens), want, strict=True):
            assert [h.labels for h in found] == [h.labels for h in known]
            assert [h.score for h in found] == pytest.approx([h.score for h in known], abs=1e-3)

    def test_without_an_estimate_is_one_line(self, decoder):
        with pytest.raises(ConfigError, match="prior_weight"):
            search(decoder, prior_weight=0.5)(torch.randn(1, 3, 5), torch.tensor([3]))
        with pytest.raises(ValueError, match="Given estimates no label prior"):
            search(Given(), prior_weight=0.5)


INTER = {"inter_weight": 0.3, "inter_layers": [0.34, 0.67]}


def encoder_of(name: str, *overrides: str):
    config = resolved(composed(f"encoder={name}", "encoder.n_layers=3", *overrides))
    torch.manual_seed(0)
    return call(config, "encoder", in_dim=20)


def attached(name: str, *overrides: str, **keys):
    encoder = encoder_of(name, *overrides)
    decoder = new(InterCtcDecoder, in_dim=encoder.out_dim, **INTER | keys)
    decoder.attach(encoder)
    return encoder.train(), decoder.train()


SMALL = {
    "transformer": ("encoder.d_model=16", "encoder.attention.n_heads=2"),
    "conformer": ("encoder.d_model=16", "encoder.attention.n_heads=2"),
    "bilstm": ("encoder.d_hidden=8",),
    "mamba": ("encoder.d_model=16",),
    "e_branchformer": ("encoder.d_model=16", "encoder.attention.n_heads=2"),
}


class TestInsideTheEncoder:
    SPEECH = (torch.randn(2, 60, 20, generator=torch.Generator().manual_seed(1)), torch.tensor([60, 44]))
    LABELS = (torch.tensor([[0, 1, 2], [2, 2, 0]]), torch.tensor([3, 2]))

    def small(self, name, **keys):
        encoder, decoder = attached(name, *SMALL[name], **keys)
        for layer in encoder.modules():
            if hasattr(layer, "p"):
                layer.p = 0.0
        return encoder, decoder

    @pytest.mark.parametrize("name", SMALL)
    def test_loss_by_hand(self, name):
        encoder, decoder = self.small(name)
        inside = []
        for i in (0, 1):  # after a third (rounded down, but at least the first) and after two thirds of 3 layers
            encoder.layers[i].register_forward_hook(lambda layer, args, out: inside.append(out))
        hidden, lens = encoder(*self.SPEECH)
        norm = getattr(encoder, "norm_out", torch.nn.Identity())
        got = decoder.loss(hidden, lens, *self.LABELS)
        final = decoder.ctc_loss(decoder.log_probs(hidden), lens, *self.LABELS)
        first, second = (
            decoder.ctc_loss(decoder.log_probs(norm(x[0] if isinstance(x, tuple) else x)), lens, *self.LABELS)
            for x in inside
        )
        inter = (first + second) / 2
        torch.testing.assert_close(got, 0.7 * final + 0.3 * inter)
        torch.testing.assert_close(decoder.terms, {"ctc": final.detach(), "inter": inter.detach()})

    def test_nothing_is_kept_between_steps_or_in_evaluation(self):
        encoder, decoder = self.small("bilstm")
        hidden, lens = encoder(*self.SPEECH)
        assert all(tap.kept is not None for tap in decoder.taps)
        decoder.loss(hidden, lens, *self.LABELS)
        assert all(tap.kept is None for tap in decoder.taps)
        encoder(*self.SPEECH)
        encoder.eval(), decoder.eval()
        hidden, lens = encoder(*self.SPEECH)
        assert all(tap.kept is None for tap in decoder.taps)
        want = decoder.ctc_loss(decoder.log_probs(hidden), lens, *self.LABELS)
        torch.testing.assert_close(decoder.loss(hidden, lens, *self.LABELS), want)
        assert decoder.terms == {}

    @pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
    def test_copies_listen_to_their_own_encoder(self, again):
        encoder, decoder = self.small("bilstm")
        encoder(*self.SPEECH)  # what is kept of it must not be copied
        encoder2, decoder2 = again((encoder, decoder))
        hidden, lens = encoder2(*self.SPEECH)
        decoder2.loss(hidden, lens, *self.LABELS).sum().backward()
        assert "inter" in decoder2.terms
        assert (
            encoder2.layers[0].cells[0].weight_ih_l0.grad is not None
            if hasattr(encoder2.layers[0].cells[0], "weight_ih_l0")
            else any(p.grad is not None for p in encoder2.layers[0].parameters())
        )
        assert all(p.grad is None for p in encoder.parameters())
        copy.deepcopy(encoder)  # alone, as costs are counted

    def test_nothing_is_added_to_the_checkpoint(self):
        encoder, decoder = self.small("conformer")
        plain = new(in_dim=encoder.out_dim)
        assert decoder.state_dict().keys() == plain.state_dict().keys()

    @pytest.mark.parametrize(
        ("name", "message"),
        [("cnn", "CnnEncoder has no such layers"), ("zipformer", "ZipformerEncoder has no such layers")],
    )
    def test_an_encoder_without_layers_is_one_line(self, name, message):
        with pytest.raises(ConfigError, match=message):
            attached(name)

    def test_one_layer_is_one_line(self):
        with pytest.raises(ConfigError, match="TransformerEncoder has 1 such layer"):
            attached("transformer", "encoder.n_layers=1")

    def test_other_frames_are_one_line(self):
        encoder, decoder = attached("squeezeformer", "encoder.n_layers=6")
        hidden, lens = encoder(*self.SPEECH)
        with pytest.raises(ConfigError, match="inside SqueezeformerEncoder gives"):
            decoder.loss(hidden, lens, *self.LABELS)

    @pytest.mark.parametrize(
        ("key", "value"),
        [("inter_layers", []), ("inter_layers", [0.5, 1.0]), ("inter_layers", [0.0]), ("inter_weight", 0.0)],
    )
    def test_bad_keys(self, key, value):
        with pytest.raises(ValueError, match=key):
            new(InterCtcDecoder, **INTER | {key: value})


@functools.cache
def plain_lexicon_search() -> dict:
    return resolved(composed("decoding=ctc_lexicon"))


WORDS = ["ab a", "ba ab", "cab"]


class TestLexicon:
    @pytest.fixture(autouse=True)
    def _installed(self, request):
        if "missing" not in request.node.name:
            pytest.importorskip("flashlight.lib.text", reason="the extra [lexicon] is not installed")

    def build(self, *, texts=WORDS, alphabet="ab c", **keys):
        config = copy.deepcopy(plain_lexicon_search())
        config["decoding"] |= keys
        search = make(config, "decoding")
        return call(config, "decoding", search, decoder=Given(), tokenizer=CharTokenizer(alphabet), train_texts=texts)

    def test_only_words_of_the_lexicon_come_out(self):
        found = self.build(beam=5)(random_log_probs(3, 30, 5, seed=2), torch.tensor([30, 12, 21]))
        words = {w for text in WORDS for w in text.split()}
        assert all(set("".join("ab c"[i] for i in h.labels).split()) <= words for n_best in found for h in n_best)
        assert all(len(h.frames) == len(h.labels) for n_best in found for h in n_best)
        assert any(len(n_best) > 1 for n_best in found)

    def test_what_is_clear_is_found_with_its_spaces(self):
        text = [0, 1, 2, 1, 0]  # "ab ba"
        log_probs = torch.full((1, 2 * len(text), 5), 0.01)
        for i, label in enumerate(text):
            log_probs[0, 2 * i, label + 1] = log_probs[0, 2 * i + 1, 0] = 1
        [n_best] = self.build()(log_probs.log_softmax(-1) * 20, torch.tensor([10]))
        assert n_best[0].labels == text and n_best[0].frames == [0, 2, 4, 6, 8]

    def test_a_file_of_words(self, tmp_path):
        (tmp_path / "words.txt").write_text("c\ncc\n")
        search = self.build(lexicon=str(tmp_path / "words.txt"))
        found = search(random_log_probs(2, 20, 5), torch.tensor([20, 15]))
        assert all(set(h.labels) <= {2, 3} for n_best in found for h in n_best)

    def test_a_model_of_words(self, tmp_path):
        arpa = tmp_path / "words.arpa"
        arpa.write_text(
            "\\data\\\nngram 1=6\nngram 2=1\n\n\\1-grams:\n-2\t<unk>\n-99\t<s>\t0\n-1\t</s>\n-3\tab\t0\n-0.2\tba\t0\n"
            "-0.5\ta\t0\n\n\\2-grams:\n-0.1\tab ba\n\n\\end\\\n"
        )
        log_probs, lens = random_log_probs(2, 20, 5), torch.tensor([20, 15])
        plain, with_it = self.build(), self.build(word_lm=str(arpa), word_score=0.3)
        share = 0.5 * math.log(10) * (-3 - 0.1 - 1) + 2 * 0.3
        forced = [s.force(log_probs[:1], lens[:1], [[0, 1, 2, 1, 0]])[0] for s in (plain, with_it)]
        assert forced[1] - forced[0] == pytest.approx(share, abs=1e-4)
        n_best = with_it(log_probs, lens)
        assert [h[0].score for h in n_best] == pytest.approx(
            with_it.force(log_probs, lens, [h[0].labels for h in n_best])
        )

    def test_mistakes_are_one_line(self, tmp_path):
        (tmp_path / "words.txt").write_text("abz\n")
        (tmp_path / "empty.txt").write_text("\n")
        for key, value, message in (
            ("lexicon", str(tmp_path / "words.txt"), "no label for 'z' of 'abz'"),
            ("lexicon", str(tmp_path / "empty.txt"), "not a single word"),
            ("lexicon", "nowhere.txt", "no such file"),
            ("word_lm", "nowhere.arpa", "no such file"),
            ("word_lm", str(tmp_path / "empty.txt"), "not read as an ARPA or KenLM file"),
            ("beam_threshold", 0.0, "beam_threshold"),
        ):
            with pytest.raises(ValueError, match=message):
                self.build(**{key: value})

    def test_a_missing_package_is_one_line(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "flashlight.lib.text.decoder", None)
        monkeypatch.setitem(sys.modules, "flashlight", None)
        with pytest.raises(ConfigError, match=r"pip install 'asr-lab\[lexicon\]'"):
            self.build()


def test_a_run_keeps_its_prior(trained):
    """In validation already, and from the checkpoint."""
    from asr_lab.evaluate import evaluate

    run, result = trained("encoder=bilstm", "decoding.beam=3", "decoding.prior_weight=0.3", "trainer.max_epochs=1")
    assert evaluate(run, ["test"])["test"]["wer"] == result["metrics"]["test/wer"]
    saved = torch.load(run.checkpoints / "best.ckpt", weights_only=False)["state_dict"]["decoder.prior"]
    assert saved.sum().item() == pytest.approx(1.0, abs=1e-4)
