"""The transducer against enumeration of its alignments, torchaudio, and loops that are too slow to use."""

import itertools
import math
from functools import partial

import pytest
import torch

from asr_lab.build import build_search, call
from asr_lab.decoders.transducer import TransducerDecoder
from asr_lab.decoding.lm_pieces import LmPieces
from asr_lab.decoding.transducer import BeamSearch, TransducerSearch
from asr_lab.errors import ConfigError
from asr_lab.layers.auxiliary_ctc import AuxiliaryCtc, NoAuxiliary
from asr_lab.layers.predictors import LstmPredictor, StatelessPredictor
from asr_lab.layers.transducer_lattice import forward, occupancies
from asr_lab.layers.transducer_loss import FastEmitLoss, OwnLoss, TorchaudioLoss, arcs
from asr_lab.lm import Fusion, NoFusion
from asr_lab.sweep.cell import resolved
from asr_lab.text.tokenizer import CharTokenizer

from .conftest import SMALL, composed

D = 6
PREDICTORS = {
    "lstm": partial(
        LstmPredictor, d_embedding=5, d_hidden=7, n_layers=2, dropout=0.0, recurrent_init="uniform", forget_bias=1.0
    ),
    "stateless": partial(StatelessPredictor, d_embedding=7, context=2, dropout=0.0),
}
both_predictors = pytest.mark.parametrize("predictor", PREDICTORS)


def decoder(predictor="lstm", n_labels=3, *, n_together=2, recompute=False, loss=None, auxiliary=NoAuxiliary, seed=0):
    """Weights large enough for distributions that are far from flat; a blank that is likely, as after training."""
    torch.manual_seed(seed)
    made = TransducerDecoder(
        D, n_labels, 8, 0.0, n_together, recompute, PREDICTORS[predictor], loss or OwnLoss(), auxiliary
    )
    with torch.no_grad():
        for p in made.parameters():
            if p.dim() > 1:
                p.mul_(3)
        made.output.bias[-1] += 0.5
    return made.eval()


def lattices(dtype=torch.float64, seed=0):
    """logits (4,U,L+1,V+1) with numbers in the padding too, lens, labels, label_lens"""
    g = torch.Generator().manual_seed(seed)
    lens, label_lens = torch.tensor([4, 3, 1, 4]), torch.tensor([2, 3, 2, 0])
    labels = torch.randint(3, (4, 3), generator=g)
    return 2 * torch.randn(4, 4, 4, 4, generator=g, dtype=dtype), lens, labels, label_lens


def alignments(n_frames: int, n_labels: int, most: int = 99):
    """Every way to place labels in frames: tuples of frames, of which `most` may be equal"""
    for frames in itertools.combinations_with_replacement(range(n_frames), n_labels):
        if all(frames.count(f) <= most for f in frames):
            yield frames


def log_prob(log_probs, labels, frames) -> float:
    """Of one alignment, (U,L+1,V+1)"""
    total, said = 0.0, 0
    for t in range(len(log_probs)):
        while said < len(labels) and frames[said] == t:
            total, said = total + log_probs[t, said, labels[said]].item(), said + 1
        total += log_probs[t, said, -1].item()
    return total


def log_sum(values) -> float:
    values = list(values)
    return max(values) + math.log(sum(math.exp(v - max(values)) for v in values))


def enumerated(model, hidden, labels, most: int = 99) -> list[float]:
    """log-probability of each alignment of one utterance (U,D)"""
    log_probs = model.logits(hidden[None], torch.tensor([labels], dtype=torch.long))[0].log_softmax(dim=-1)
    return [log_prob(log_probs, labels, frames) for frames in alignments(len(hidden), len(labels), most)]


def each(logits, lens, labels, label_lens):
    """One utterance's log-probabilities without padding, and its labels"""
    for row, n, ids, k in zip(
        logits.log_softmax(dim=-1), lens.tolist(), labels.tolist(), label_lens.tolist(), strict=True
    ):
        yield row[:n, : k + 1], ids[:k]


class TestLoss:
    def test_is_the_sum_over_all_alignments(self):
        batch = lattices()
        want = [
            -log_sum(log_prob(row, ids, frames) for frames in alignments(len(row), len(ids)))
            for row, ids in each(*batch)
        ]
        assert OwnLoss()(*batch).tolist() == pytest.approx(want, rel=1e-12)

    def test_best_path_is_the_best_alignment(self):
        logits, lens, labels, label_lens = lattices()
        walked = forward(*arcs(logits.log_softmax(dim=-1), labels), lens, label_lens, best=True)
        blank, label = occupancies(walked, best=True)
        for i, (row, ids) in enumerate(each(logits, lens, labels, label_lens)):
            best = max(alignments(len(row), len(ids)), key=lambda frames: log_prob(row, ids, frames))
            assert walked.total[i].item() == pytest.approx(log_prob(row, ids, best))
            assert [tuple(x) for x in label[i].nonzero().tolist()] == sorted((t, u) for u, t in enumerate(best))
            assert blank[i].sum() == len(row)

    def test_occupancies_are_shares_of_alignments(self):
        logits, lens, labels, label_lens = lattices()
        blank, label = occupancies(
            forward(*arcs(logits.log_softmax(-1), labels), lens, label_lens, best=False), best=False
        )
        for i, (row, ids) in enumerate(each(logits, lens, labels, label_lens)):
            paths = {frames: math.exp(log_prob(row, ids, frames)) for frames in alignments(len(row), len(ids))}
            for t, u in itertools.product(range(4), range(4)):
                said_here = sum(p for frames, p in paths.items() if u < len(ids) and frames[u] == t)
                assert label[i, t, u].item() == pytest.approx(said_here / sum(paths.values()))
        torch.testing.assert_close(blank.sum(dim=(1, 2)), lens.double())
        torch.testing.assert_close(label.sum(dim=(1, 2)), label_lens.double())

    def test_gradient(self):
        logits, *rest = lattices()
        assert torch.autograd.gradcheck(lambda x: OwnLoss()(x, *rest), logits.requires_grad_())

    @pytest.mark.parametrize("seed", range(3))
    def test_equals_torchaudio(self, seed):
        results = []
        for loss in (OwnLoss(), TorchaudioLoss()):
            logits, *rest = lattices(torch.float32, seed)
            values = loss(logits.requires_grad_(), *rest)
            (values * torch.arange(1, 5)).sum().backward()
            results.append((values.detach(), logits.grad))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)

    def test_a_long_one_keeps_its_accuracy(self):
        g = torch.Generator().manual_seed(0)
        logits, labels = 5 * torch.randn(1, 300, 101, 5, generator=g), torch.randint(4, (1, 100), generator=g)
        lens, label_lens = torch.tensor([300]), torch.tensor([100])
        single, double = (OwnLoss()(x, lens, labels, label_lens) for x in (logits, logits.double()))
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=0)

    def test_impossible_labels_are_infinite(self):
        logits, lens, labels, label_lens = lattices()
        logits[..., :3] = -torch.inf
        logits.requires_grad_()
        loss = OwnLoss()(logits, lens, labels, label_lens)
        assert torch.isinf(loss).tolist() == [True, True, True, False]

    def test_fastemit_weighs_gradients_through_labels(self):
        """By autograd through a loop over nodes, in which the arcs are separate variables."""
        logits, lens, labels, label_lens = lattices()
        for i in range(4):
            x = logits[i, : lens[i], : label_lens[i] + 1].clone().requires_grad_()
            ids = labels[i, : label_lens[i]]
            blank, label = arcs(x.log_softmax(dim=-1)[None], ids[None])
            alpha = {(-1, 0): None}
            for t, u in itertools.product(range(int(lens[i])), range(int(label_lens[i]) + 1)):
                come = [alpha[t - 1, u] + blank[0, t - 1, u]] if t else []
                come += [alpha[t, u - 1] + label[0, t, u - 1]] if u else []
                alpha[t, u] = torch.stack(come).logsumexp(0) if come else torch.zeros((), dtype=x.dtype)
            total = alpha[int(lens[i]) - 1, int(label_lens[i])] + blank[0, -1, -1]
            of_blank, of_label = torch.autograd.grad(-total, (blank, label), retain_graph=True, allow_unused=True)
            of_label = torch.zeros_like(of_blank) if of_label is None else of_label
            want = torch.autograd.grad((blank, label), x, (of_blank, 1.5 * of_label))[0]
            y = x.detach()[None].requires_grad_()
            loss = FastEmitLoss(0.5)(y, lens[i : i + 1], ids[None], label_lens[i : i + 1])
            assert loss.item() == pytest.approx(-total.item())
            torch.testing.assert_close(torch.autograd.grad(loss.sum(), y)[0][0], want)


class TestDecoder:
    hidden = torch.randn(5, 7, D, generator=torch.Generator().manual_seed(1))
    lens, label_lens = torch.tensor([7, 5, 6, 3, 7]), torch.tensor([3, 2, 0, 4, 1])
    labels = torch.randint(3, (5, 4), generator=torch.Generator().manual_seed(2))
    batch = (hidden, lens, labels, label_lens)

    @both_predictors
    def test_step_by_step_equals_at_once(self, predictor):
        model = decoder(predictor).predictor
        state = model.begin(5, torch.device("cpu"))
        outputs = [state[0]]
        for i in range(4):
            state = model.advance(state, self.labels[:, i])
            outputs.append(state[0])
        torch.testing.assert_close(torch.stack(outputs, dim=1), model(self.labels))

    @both_predictors
    def test_what_a_predictor_remembers(self, predictor):
        model = decoder(predictor).predictor
        other = self.labels.clone()
        other[:, 0] = (other[:, 0] + 1) % 3
        same = (model(self.labels) == model(other)).all(dim=2).all(dim=0)
        assert same.tolist() == [True, False, False, predictor == "stateless", predictor == "stateless"]

    @pytest.mark.parametrize(("n_together", "recompute"), [(1, False), (5, False), (2, True)])
    def test_lots_and_recomputing_change_nothing(self, n_together, recompute):
        results = []
        for model in (decoder(), decoder(n_together=n_together, recompute=recompute)):
            loss = model.train().loss(*self.batch)
            loss.sum().backward()
            results.append([loss.detach(), *[p.grad for p in model.parameters()]])
        torch.testing.assert_close(*results)

    def test_both_losses_agree(self):
        torch.testing.assert_close(decoder().loss(*self.batch), decoder(loss=TorchaudioLoss()).loss(*self.batch))

    def test_auxiliary_ctc(self):
        plain, model = decoder(), decoder(auxiliary=partial(AuxiliaryCtc, weight=0.5))
        model.load_state_dict(plain.state_dict(), strict=False)
        log_probs = model.auxiliary.output(self.hidden).log_softmax(dim=-1).transpose(0, 1)
        ctc = torch.nn.functional.ctc_loss(
            log_probs, self.labels, self.lens, self.label_lens, blank=3, reduction="none"
        )
        own = plain.loss(*self.batch)
        torch.testing.assert_close(model.loss(*self.batch), own + 0.5 * ctc)
        torch.testing.assert_close(model.terms, {"transducer": own.detach(), "auxiliary": ctc.detach()})
        assert plain.terms == {}

    def test_least_frames(self):
        labels, lens = torch.tensor([[1, 1, 1], [1, 2, 2], [0, 0, 0]]), torch.tensor([3, 2, 0])
        assert decoder().min_frames(labels, lens).tolist() == [1, 1, 1]
        with_ctc = decoder(auxiliary=partial(AuxiliaryCtc, weight=0.5))
        assert with_ctc.min_frames(labels, lens).tolist() == [5, 2, 1]

    def test_likelihoods_of_many_sequences(self):
        model = decoder()
        n_best = [[[0], [0, 1], [0, 1, 2], []], [[2, 2]], [[], [1]], [[0, 1, 2], [0, 1, 1], [1]], [[0]]]
        for i, row in enumerate(model.log_likelihoods(self.hidden, self.lens, n_best)):
            want = [log_sum(enumerated(model, self.hidden[i, : self.lens[i]], s)) for s in n_best[i]]
            assert row == pytest.approx(want, abs=1e-4)

    def test_posteriors_are_the_lattice(self):
        model = decoder()
        log_probs, valid = model.posteriors(*self.batch)
        assert valid.sum(dim=1).tolist() == (self.lens * (self.label_lens + 1)).tolist()
        torch.testing.assert_close(log_probs.exp().sum(dim=-1), torch.ones(5, 7 * 5))
        nodes = log_probs.view(5, 7, 5, 4)
        walked = forward(*arcs(nodes, self.labels), self.lens, self.label_lens, best=False)
        torch.testing.assert_close(-walked.total, model.loss(*self.batch))

    @both_predictors
    def test_align_gives_the_best_alignment(self, predictor):
        model = decoder(predictor)
        for i, spans in enumerate(model.align(*self.batch)):
            n, ids = int(self.lens[i]), self.labels[i, : self.label_lens[i]].tolist()
            log_probs = model.logits(self.hidden[i : i + 1, :n], torch.tensor([ids], dtype=torch.long))[0].log_softmax(
                -1
            )
            best = max(alignments(n, len(ids)), key=lambda frames: log_prob(log_probs, ids, frames))
            assert [s.label for s in spans] == ids
            assert tuple(s.start for s in spans) == best
            assert [s.end for s in spans] == [max(a + 1, b) for a, b in zip(best, [*best[1:], n], strict=False)]
            said = [log_probs[t, u, k].item() for u, (t, k) in enumerate(zip(best, ids, strict=True))]
            assert [s.score for s in spans] == pytest.approx(said, abs=1e-4)


class Recalling:
    """A language model of the whole history, whose states cannot be put together: a list of rows, all of one length."""

    def __init__(self, tokenizer):
        self.n_labels = len(tokenizer)

    def begin(self, n, device):
        return [()] * n

    def scores(self, state):
        assert len({len(row) for row in state}) == 1
        seeds = [sum((k + 2) * 7**i for i, k in enumerate(row)) % 2**31 for row in state]
        draws = [torch.randn(self.n_labels + 1, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(draws).log_softmax(dim=-1)

    def advance(self, state, labels):
        return [(*row, k) for row, k in zip(state, labels.tolist(), strict=True)]

    def select(self, state, rows):
        return [state[i] for i in rows.tolist()]


def recalling(weight: float, n_labels: int = 2) -> Fusion:
    return Fusion(CharTokenizer("abc"[:n_labels]), [], Recalling, weight=weight, bonus=0.4, use="fusion")


def by_hand(model, hidden, max_symbols: int) -> tuple[list[int], list[int], float]:
    """Greedy search of one utterance (U,D), one frame and one label at a time"""
    labels, frames, total = [], [], 0.0
    for t in range(len(hidden)):
        for n in range(max_symbols + 1):
            said = torch.tensor([labels], dtype=torch.long)
            log_probs = model.logits(hidden[None, t : t + 1], said)[0, 0, -1].log_softmax(dim=-1)
            best = int(log_probs.argmax()) if n < max_symbols else model.blank
            total += log_probs[best].item()
            if best == model.blank:
                break
            labels, frames = [*labels, best], [*frames, t]
    return labels, frames, total


class TestSearch:
    hidden = torch.randn(4, 20, D, generator=torch.Generator().manual_seed(3))
    lens = torch.tensor([20, 1, 13, 17])

    @both_predictors
    @pytest.mark.parametrize("max_symbols", [1, 2, 5])
    def test_greedy_equals_a_loop(self, predictor, max_symbols):
        model = decoder(predictor)
        n_labels = []
        for i, [found] in enumerate(TransducerSearch(model, NoFusion(), 1, max_symbols)(self.hidden, self.lens)):
            labels, frames, total = by_hand(model, self.hidden[i, : self.lens[i]], max_symbols)
            assert (found.labels, found.frames) == (labels, frames)
            assert found.score == pytest.approx(total, abs=1e-3)
            n_labels.append(len(labels))
        assert sum(n_labels) > 5

    @both_predictors
    @pytest.mark.parametrize("pieces", [[1] * 20, [3, 10, 7], [19, 1]])
    def test_pieces_equal_the_whole(self, predictor, pieces):
        search = TransducerSearch(decoder(predictor), NoFusion(), 1, 3)
        whole = search(self.hidden, self.lens)
        stream, begin = search.stream(4), 0
        labels, frames = [[] for _ in range(4)], [[] for _ in range(4)]
        for n in pieces:
            left = (self.lens - begin).clamp(0, n)
            for i, new in enumerate(stream(self.hidden[:, begin : begin + n], left)):
                labels[i] += new.labels
                frames[i] += new.frames
            begin += n
        assert [(f[0].labels, f[0].frames) for f in whole] == list(zip(labels, frames, strict=True))

    @pytest.mark.parametrize("lm", [NoFusion(), recalling(0.8)], ids=["alone", "lm"])
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.quick(2)
    def test_a_huge_beam_finds_the_best_of_all(self, seed, lm):
        model = decoder(n_labels=2, seed=seed)
        sequences = [list(s) for n in range(5) for s in itertools.product(range(2), repeat=n)]
        for hidden in self.hidden[:2, :3]:
            want = [log_sum(enumerated(model, hidden, s)) for s in sequences]
            if lm.in_search:
                share = lm.total(sequences, hidden.device).tolist()
                want = [a + b for a, b in zip(want, share, strict=True)]
            best = max(zip(want, sequences, strict=True))
            [found] = TransducerSearch(model, lm, 500, 4)(hidden[None], torch.tensor([3]))
            assert found[0].labels == best[1]
            assert found[0].score == pytest.approx(best[0], abs=1e-3)
            scores = {tuple(h.labels): h.score for h in found}
            got = [scores[tuple(s)] for s in sequences if tuple(s) in scores]
            assert len(got) > 20
            assert got == pytest.approx(
                [w for w, s in zip(want, sequences, strict=True) if tuple(s) in scores], abs=1e-3
            )

    @pytest.mark.parametrize("max_symbols", [1, 2])
    @pytest.mark.parametrize("lm", [None, recalling(0.8)], ids=["alone", "lm"])
    def test_equal_hypotheses_add_their_probabilities(self, max_symbols, lm):
        """What the beam itself believes, before anything is scored anew, where it is wide enough to hold all."""
        model, hidden = decoder(n_labels=2), self.hidden[:1, :3]
        search = BeamSearch(model, lm or NoFusion(), 300, max_symbols, hidden)
        kept = []
        trace = search._traced
        search._traced = lambda beams: kept.append(beams) or trace(beams)
        found = search(torch.tensor([3]))[0]
        scores = [s for s in kept[0].score[0].tolist() if s > -math.inf]
        sequences = [s for n in range(3 * max_symbols + 1) for s in itertools.product(range(2), repeat=n)]
        assert sorted(found) == sorted(sequences)  # each once
        for (labels, frames), score in zip(found.items(), scores, strict=True):
            want = log_sum(enumerated(model, hidden[0], list(labels), max_symbols))
            if lm:  # all but the end, which is scored at the end
                total = lm.total([list(labels)], hidden.device).item()
                want += total - lm.scores([labels])[0, -1].item()
            assert score == pytest.approx(want, abs=1e-3)
            assert tuple(frames) in set(alignments(3, len(labels), max_symbols))

    def test_a_beam_of_one_with_a_model_uses_it(self):
        model = decoder(n_labels=2)
        plain, fused = (
            TransducerSearch(model, lm, 1, 3)(self.hidden, self.lens) for lm in (NoFusion(), recalling(3.0))
        )
        assert all(len(found) == 1 for found in fused)
        assert [f[0].labels for f in plain] != [f[0].labels for f in fused]

    def test_states_of_a_model_stay_with_their_hypotheses(self):
        lm = recalling(1.0)
        pieces = LmPieces(lm, torch.device("cpu"))
        scores, piece, row = pieces.begin(3)
        grown = [(), (), ()]
        for pairs in [[(0, 1), (2, 0)], [(1, 1), (2, 1)], [(2, 0), (0, 0), (1, 1)]]:
            rows, labels = torch.tensor(pairs).t()
            scores[rows], piece[rows], row[rows] = pieces.advance(piece[rows], row[rows], labels)
            for i, k in pairs:
                grown[i] = (*grown[i], k)
            pieces.keep(piece)
            for i in range(3):
                assert torch.equal(scores[i], lm.scores([grown[i]])[0])
        assert len(pieces.pieces) == len(set(piece.tolist()))

    def test_nothing_said_is_a_hypothesis(self):
        model = decoder()
        with torch.no_grad():
            model.output.bias[-1] += 100
        for beam in (1, 3):
            for found in TransducerSearch(model, NoFusion(), beam, 2)(self.hidden, self.lens):
                assert (found[0].labels, found[0].frames) == ([], [])
                assert found[0].score == pytest.approx(0, abs=1e-3)

    @pytest.mark.parametrize(
        ("predictor", "scale", "labels"),
        [("lstm", 0.5, [[2, 2, 1], [2, 0]]), ("stateless", 1.0, [[2, 2, 2, 1, 2, 1], [2, 1, 2, 1]])],
    )
    def test_golden(self, predictor, scale, labels):
        """Weights from a formula, so that they are the same everywhere."""
        model = decoder(predictor)
        with torch.no_grad():
            for n, p in enumerate(model.parameters()):
                p.copy_(scale * (torch.arange(p.numel()).double().view_as(p) ** 1.7 * (n + 1.7)).sin())
            for layer in (model.from_hidden, model.from_labels):
                layer[1].reset_parameters()
        hidden = (2 * (torch.arange(2 * 12 * D).double().view(2, 12, D) ** 1.5).cos()).float()
        found = TransducerSearch(model, NoFusion(), 4, 2)(hidden, torch.tensor([12, 9]))
        assert [f[0].labels for f in found] == labels


@pytest.mark.parametrize("encoder", ["lstm", "conformer_streaming"])
@pytest.mark.parametrize("choice", ["transducer", "transducer_stateless"])
def test_streams_from_features_to_labels(encoder, choice):
    """Features in pieces -> encoder -> labels, and the same of the whole utterance at once."""
    cfg = composed(f"encoder={encoder}", f"decoder={choice}")
    for key in ("d_model", "d_hidden", "n_layers", "kernel_size", "attention.n_heads", "context.chunk_size"):
        from omegaconf import OmegaConf

        if OmegaConf.select(cfg.encoder, key) is not None:
            OmegaConf.update(cfg.encoder, key, SMALL["encoder"][key])
    config = resolved(cfg)
    torch.manual_seed(0)
    model = call(config, "encoder", in_dim=24).eval()
    output = call(config, "decoder", in_dim=model.out_dim, n_labels=4).eval()
    with torch.no_grad():
        output.output.weight.mul_(10)
    search, _ = build_search(config, output, CharTokenizer("abcd"), [])
    feats = 3 * torch.randn(2, 12 * model.stream_frames + 1, 24)
    whole = search(*model(feats, torch.full((2,), feats.shape[1])))
    stream, state = search.stream(2), None
    labels, frames = [[], []], [[], []]
    for piece in feats.split(model.stream_frames, dim=1):
        with torch.no_grad():
            hidden, state = model.stream(piece, state)
        for i, new in enumerate(stream(hidden, torch.full((2,), hidden.shape[1]))):
            labels[i] += new.labels
            frames[i] += new.frames
    assert [f[0].labels for f in whole] == labels
    assert [f[0].frames for f in whole] == frames
    assert min(map(len, labels)) > 2


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["decoding.beam=0"], "beam and max_symbols must be at least 1, 0 and 10 came"),
        (["decoding.max_symbols=0"], "beam and max_symbols must be at least 1, 1 and 0 came"),
        (["decoder=ctc", "decoding=transducer"], "conf/decoding: this search is for decoder=transducer, not for CtcD"),
        (["decoder.predictor.d_hidden=0"], "predictor.d_embedding, d_hidden and n_layers must be positive"),
        (["decoder/predictor=stateless", "decoder.predictor.context=0"], "predictor.context and d_embedding must be"),
        (["decoder.d_joint=0"], "d_joint and n_together must be positive, 0 and 8 came"),
        (["decoder/auxiliary=ctc", "decoder.auxiliary.weight=0"], "decoder/auxiliary=none"),
        (["decoder/transducer_loss=fastemit", "decoder.transducer_loss.weight=-1"], "must not be negative, -1 came"),
    ],
)
@pytest.mark.quick(3)
def test_wrong_values_are_one_line(overrides, says):
    config = resolved(composed("decoder=transducer", *overrides))
    with pytest.raises(ConfigError, match=says) as error:
        build_search(config, call(config, "decoder", in_dim=4, n_labels=3), CharTokenizer("abc"), [])
    assert "\n" not in str(error.value)
