"""The attention and the sequence-to-sequence decoder against their equations, loops and enumeration."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from asr_lab.decoders.attention import AttentionDecoder
from asr_lab.decoders.seq2seq import Seq2SeqDecoder
from asr_lab.decoding.attention import AttentionSearch
from asr_lab.layers import attention_rules as rules
from asr_lab.layers.readout import Frames, LastState, Mean
from asr_lab.layers.recurrence import Gru, Lstm
from asr_lab.lm import NoFusion

from .conftest import choices, composed, tiny

D, V, H = 6, 3, 8  # width of the frames, labels, width of the decoder
RULES = {
    "concat": partial(rules.ConcatAttention, dropout=0.0),
    "additive": partial(rules.AdditiveAttention, d_attention=5, dropout=0.0),
    "dot": partial(rules.DotAttention, d_attention=5, dropout=0.0),
    "location": partial(rules.LocationAwareAttention, d_attention=5, n_filters=2, kernel_size=3, dropout=0.0),
    "multi_head": partial(rules.MultiHeadAttention, d_attention=6, n_heads=2, dropout=0.0),
}
CELLS = {
    "lstm": partial(Lstm, recurrent_init="orthogonal", forget_bias=1.0),
    "gru": partial(Gru, recurrent_init="orthogonal"),
}
LAST = partial(LastState, n_directions=1)


def attention(rule: str = "location", cell: str = "lstm", seed: int = 0, **changes) -> AttentionDecoder:
    """In training mode, without dropout."""
    torch.manual_seed(seed)
    values = {"d_hidden": H, "n_layers": 1, "input_feeding": True, "scheduled_sampling": 0.0, "label_smoothing": 0.0}
    return AttentionDecoder(D, V, rule=RULES[rule], cell=CELLS[cell], **values | {"dropout": 0.0} | changes)


def seq2seq(seed: int = 0, **changes) -> Seq2SeqDecoder:
    torch.manual_seed(seed)
    values = {"readout": LAST, "cell": CELLS["lstm"], "d_hidden": H, "n_layers": 1, "scheduled_sampling": 0.0}
    return Seq2SeqDecoder(D, V, **values | {"label_smoothing": 0.0, "dropout": 0.0} | changes)


DECODERS = {
    **{rule: partial(attention, rule) for rule in RULES},
    "gru, two layers": partial(attention, cell="gru", n_layers=2),
    "two layers, not fed": partial(attention, "dot", n_layers=2, input_feeding=False),
    "seq2seq": seq2seq,
    "seq2seq, two layers": partial(seq2seq, n_layers=2, readout=partial(Mean, n_directions=1)),
}


def lively(model):
    """Weights so large that what comes next depends on what was said and heard."""
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(3.0)
    return model.eval()


def examples(seed: int = 1):
    g = torch.Generator().manual_seed(seed)
    hidden, lens = torch.randn(3, 9, D, generator=g), torch.tensor([9, 5, 7])
    return hidden, lens, torch.randint(V, (3, 4), generator=g), torch.tensor([4, 2, 0])


def search(model, beam: int, max_ratio: float = 0.0, max_extra: int = 3, **changes) -> AttentionSearch:
    values = {"length_norm": 0.0, "label_bonus": 0.0, "coverage": 0.0, "coverage_floor": 0.01}
    return AttentionSearch(model, NoFusion(), beam, max_ratio=max_ratio, max_extra=max_extra, **values | changes)


# The loss


def lstm(w: dict, x, h, c):
    """One step of a LSTM, gates i, f, g, o, written out."""
    k = "rnn.layers.0.kernel."
    gates = w[k + "weight_ih_l0"] @ x + w[k + "bias_ih_l0"] + w[k + "weight_hh_l0"] @ h + w[k + "bias_hh_l0"]
    i, f, g, o = gates.chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def predicted(w: dict, h, context):
    joined = torch.tanh(w["join.weight"] @ torch.cat([h, context]) + w["join.bias"])
    return (w["output.weight"] @ joined + w["output.bias"]).log_softmax(dim=0)


def test_location_aware_loss_is_the_sum_of_its_equations():
    """Chorowski et al. 2015, equations 5 to 9, with the context fed back, frame by frame."""
    model = attention("location").double()
    hidden, lens, labels, label_lens = examples()
    w = model.state_dict()
    expected = []
    for frames, n_frames, said, n in zip(hidden.double(), lens, labels, label_lens, strict=True):
        h = c = torch.zeros(H, dtype=torch.float64)
        context, weights = (
            torch.zeros(D, dtype=torch.float64),
            torch.full((n_frames,), 1 / n_frames, dtype=torch.float64),
        )
        total, before = 0.0, V
        for target in [*said[:n].tolist(), V]:
            h, c = lstm(w, torch.cat([w["rnn.embedding.weight"][before], context]), h, c)
            scores = []
            for u in range(n_frames):
                window = [weights[v] if 0 <= v < n_frames else 0.0 for v in (u - 1, u, u + 1)]
                found = w["rule.filters.weight"][:, 0] @ torch.tensor(window, dtype=torch.float64)
                inner = w["rule.linear_q.weight"] @ h + w["rule.linear_q.bias"] + w["rule.linear_k.weight"] @ frames[u]
                scores.append(w["rule.linear_v.weight"][0] @ torch.tanh(inner + w["rule.linear_f.weight"] @ found))
            weights = torch.stack(scores).softmax(dim=0)
            context = weights @ frames[:n_frames]
            total, before = total - predicted(w, h, context)[target].item(), target
        expected.append(total)
    assert model.loss(hidden.double(), lens, labels, label_lens).tolist() == pytest.approx(expected, rel=1e-9)


def test_seq2seq_loss_is_the_sum_of_its_equations():
    model = seq2seq().double()
    hidden, lens, labels, label_lens = examples()
    w = model.state_dict()
    expected = []
    for frames, n_frames, said, n in zip(hidden.double(), lens, labels, label_lens, strict=True):
        context = frames[n_frames - 1]
        h, c = torch.tanh(w["first.weight"] @ context + w["first.bias"]), torch.zeros(H, dtype=torch.float64)
        total, before = 0.0, V
        for target in [*said[:n].tolist(), V]:
            h, c = lstm(w, torch.cat([w["rnn.embedding.weight"][before], context]), h, c)
            total, before = total - predicted(w, h, context)[target].item(), target
        expected.append(total)
    assert model.loss(hidden.double(), lens, labels, label_lens).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", DECODERS)
def test_all_labels_at_once_equal_label_by_label(name):
    """The same loss and gradients; and location-aware or fed decoders never take the shortcut."""
    model = (attention(name, input_feeding=False) if name in RULES else DECODERS[name]()).double()
    batch = [examples()[0].double().requires_grad_(), *examples()[1:]]
    assert model.at_once == (name not in ("location", "gru, two layers"))
    losses, gradients = [], []
    for at_once in (model.at_once, False):
        model.at_once = at_once
        losses.append(model.loss(*batch))
        wanted = [batch[0], *(p for p in model.parameters())]
        gradients.append(torch.autograd.grad(losses[-1].sum(), wanted, allow_unused=True))
    torch.testing.assert_close(losses[0], losses[1])
    for first, second in zip(*gradients, strict=True):
        zero = torch.zeros(())
        torch.testing.assert_close(
            zero if first is None else first.sum(), zero if second is None else second.sum(), check_dtype=False
        )


@pytest.mark.parametrize("name", DECODERS)
def test_all_probabilities_add_up_to_one(name):
    """Of all label sequences up to 3, with the probability that it goes on."""
    model = DECODERS[name]().double().eval()
    hidden, lens = examples()[0][:1].double(), examples()[1][:1]
    total = 0.0
    for n in range(4):
        said = torch.tensor(list(itertools.product(range(V), repeat=n)), dtype=torch.long).view(V**n, n)
        posteriors, valid = model.posteriors(
            hidden.expand(len(said), -1, -1), lens.expand(len(said)), said, torch.full((len(said),), n)
        )
        assert valid.all() and posteriors.shape == (len(said), n + 1, V + 1)
        inside = posteriors[:, :n].gather(2, said[:, :, None]).sum(dim=(1, 2))
        ends = posteriors[:, n, V] if n < 3 else 0.0  # of those with 3 labels whatever follows
        total += (inside + ends).exp().sum().item()
    assert total == pytest.approx(1.0)


@pytest.mark.parametrize("make", [attention, seq2seq])
def test_label_smoothing_is_pytorchs(make):
    model, batch = make(label_smoothing=0.2), examples()
    logits, valid = model.posteriors(*batch)
    assert valid.tolist() == [[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4]
    loss = model.loss(*batch)
    for i, n in enumerate(batch[3].tolist()):
        targets = torch.tensor([*batch[2][i, :n].tolist(), V])
        expected = cross_entropy(logits[i, : n + 1], targets, label_smoothing=0.2, reduction="sum")
        torch.testing.assert_close(loss[i], expected)
    plain = make(label_smoothing=0.0)
    torch.testing.assert_close(model.eval().loss(*batch), plain.loss(*batch))  # a held-out loss is a likelihood


# Scheduled sampling


@pytest.mark.parametrize("make", [attention, seq2seq])
def test_sampling_at_one_reads_its_own_labels(make):
    """A decoder so sure of itself that drawing is choosing: the right labels enter as targets only."""
    model, (hidden, lens, labels, label_lens) = make(scheduled_sampling=1.0), examples()
    with torch.no_grad():
        model.output.weight.mul_(1e4)
    state, expected = model.begin(hidden, lens), torch.zeros(3)
    for i in range(5):
        scores = model.scores(state)
        targets = torch.tensor(
            [said[i] if i < n else V for said, n in zip(labels, label_lens, strict=True) for said in [[*said, V]]]
        )
        expected += scores.gather(1, targets[:, None])[:, 0] * (i <= label_lens)
        state = model.advance(state, scores[:, :V].argmax(dim=1))
    torch.testing.assert_close(model.loss(hidden, lens, labels, label_lens), -expected)


@pytest.mark.parametrize("make", [attention, seq2seq])
def test_sampling_at_zero_and_in_evaluation_is_teacher_forcing(make):
    batch = examples()
    forced = make().loss(*batch)
    model = make(scheduled_sampling=0.7)
    assert not torch.allclose(model.loss(*batch), forced)
    torch.testing.assert_close(model.eval().loss(*batch), forced)


def test_sampling_follows_the_seed_and_its_rate():
    model, batch = attention(scheduled_sampling=0.5), examples()

    def drawn(seed):
        torch.manual_seed(seed)
        return model.loss(*batch)

    assert torch.equal(drawn(3), drawn(3))
    assert len({tuple(drawn(seed).tolist()) for seed in range(8)}) > 4
    state = model.begin(torch.randn(1, 4, D).expand(4000, -1, -1), torch.full((4000,), 4))
    with torch.no_grad():
        model.output.bias[1] = 30.0  # nothing but label 1 is drawn
    torch.manual_seed(0)
    read = model._sampled(state, torch.zeros(4000, dtype=torch.long), 0.3)
    assert read.float().mean().item() == pytest.approx(0.3, abs=0.03)
    model.output.bias.data[V] = 1e4  # the end is sure, and still not read
    assert (model._sampled(state, torch.zeros(4000, dtype=torch.long), 1.0) < V).all()


# The search


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", DECODERS)
def test_greedy_is_the_loop_that_anyone_would_write(name, seed):
    """The whole prefix is read again for each label, an utterance alone."""
    model = lively(DECODERS[name](seed=seed))
    hidden, lens, *_ = examples(seed)
    for i, [found] in enumerate(search(model, 1, max_ratio=0.5, max_extra=4)(hidden, lens)):
        labels, score, most = [], 0.0, int(0.5 * lens[i]) + 4
        while True:
            row = slice(i, i + 1)
            prefix = torch.tensor([labels], dtype=torch.long)
            log_probs = model.posteriors(hidden[row], lens[row], prefix, torch.tensor([len(labels)]))[0][0, -1]
            best = V if len(labels) == most else int(log_probs.argmax())
            score += log_probs[best].item()
            if best == V:
                break
            labels.append(best)
        assert found.labels == labels
        assert found.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("name", DECODERS)
def test_a_huge_beam_finds_the_best_of_all_sequences(name):
    """Enumeration with the loss, up to 3 labels."""
    model = lively(DECODERS[name]())
    hidden, lens, *_ = examples()
    said = [s for n in range(4) for s in itertools.product(range(V), repeat=n)]
    padded = torch.tensor([[*s, 0, 0, 0][:3] for s in said])
    n_labels = torch.tensor([len(s) for s in said])
    for i, found in enumerate(search(model, 60)(hidden, lens)):
        scores = -model.loss(hidden[i].expand(len(said), -1, -1), lens[i].expand(len(said)), padded, n_labels)
        truth = sorted(zip(scores.tolist(), said, strict=True), reverse=True)
        assert [tuple(h.labels) for h in found[:5]] == [s for _, s in truth[:5]]
        assert [h.score for h in found] == pytest.approx([s for s, _ in truth], abs=1e-4)


def test_frames_are_where_the_attention_is_highest():
    model = lively(attention())
    hidden, lens, *_ = examples()
    n_best = search(model, 4, max_ratio=1.0, label_bonus=3.0)(hidden, lens)
    assert max(len(found[0].labels) for found in n_best) > 1
    for i, found in enumerate(n_best):
        for h in found:
            state, frames = model.begin(hidden[i : i + 1], lens[i : i + 1]), []
            for label in h.labels:
                frames.append(int(model.attended(state)[0].argmax()))
                state = model.advance(state, torch.tensor([label]))
            assert h.frames == frames
            assert all(frame < lens[i] for frame in frames)
    assert all(h.frames is None for found in search(lively(seq2seq()), 4)(hidden, lens) for h in found)


def test_attention_never_falls_on_padding():
    hidden, lens, *_ = examples()
    for name in RULES:
        model = lively(attention(name))
        attended = model.attended(model.begin(hidden, lens))
        assert not attended[1, 5:].any() and not attended[2, 7:].any()
        torch.testing.assert_close(attended.sum(dim=1), torch.ones(3))


def test_location_aware_queries_side_by_side_are_those_alone():
    """Hypotheses of a beam share their utterance's keys, each with the weights of its own past."""
    rule = RULES["location"](query_dim=4, key_dim=D)
    query, keys, before = torch.randn(2, 3, 4), torch.randn(2, 9, D), torch.rand(2, 1, 3, 9)
    mask = torch.arange(9) < torch.tensor([9, 6])[:, None, None]
    context, weights = rule(query, keys, mask, before)
    for i in range(3):
        alone = rule(query[:, i : i + 1], keys, mask, before[:, :, i : i + 1])
        torch.testing.assert_close(context[:, i : i + 1], alone[0])
        torch.testing.assert_close(weights[:, :, i : i + 1], alone[1])


def test_golden_hypotheses():
    """Written down once from weights that are sines: they change only if the arithmetic does."""
    model = attention()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(3 * torch.sin(torch.arange(p.numel()) * (2.9 + i)).view_as(p))
    hidden = 2 * torch.sin(torch.arange(2 * 9 * D) * 0.9).view(2, 9, D)
    first, second = search(model.eval(), 4, max_ratio=1.0)(hidden, torch.tensor([9, 6]))
    assert [(h.labels, h.frames) for h in (first[0], *second[:2])] == [
        ([2, 1, 1], [5, 5, 6]),
        ([2, 1, 1], [4, 3, 3]),
        ([2, 1, 1, 1, 1, 1], [4, 3, 3, 4, 3, 4]),
    ]
    assert [h.score for h in (first[0], *second[:2])] == pytest.approx([-1.879366, -1.839465, -2.041762], abs=1e-3)


# Learning


@pytest.mark.parametrize("name", DECODERS)
def test_utterances_are_learnt_by_heart(name):
    """Every rule and no rule, concatenation too: it reads the same of an utterance for each label, which is enough to
    tell utterances apart."""
    model = DECODERS[name](d_hidden=24) if name not in RULES else attention(name, d_hidden=24)
    hidden, lens, labels, label_lens = examples()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(120):
        optimizer.zero_grad()
        loss = model.loss(hidden, lens, labels, label_lens).sum()
        loss.backward()
        optimizer.step()
        if loss < 0.3:
            break
    expected = [said[:n].tolist() for said, n in zip(labels, label_lens, strict=True)]
    for beam in (1, 4):
        assert [found[0].labels for found in search(model.eval(), beam, max_ratio=1.0)(hidden, lens)] == expected


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["bilstm", "conformer"])
@pytest.mark.parametrize("choice", [f"decoder/rule={rule}" for rule in choices("decoder/rule") if rule != "location"])
def test_every_rule_learns_a_batch_by_heart(choice, encoder, tones):
    from .test_training import learnt_by_heart

    learnt_by_heart(tiny(tones, f"encoder={encoder}", "decoder=attention", choice))


# Mistakes


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (attention, {"scheduled_sampling": 1.5}, "decoder.scheduled_sampling is a share in .*1.5 came"),
        (attention, {"label_smoothing": -0.1}, "decoder.label_smoothing is a share in .*-0.1 came"),
        (attention, {"n_layers": 0}, "decoder.n_layers must be at least 1, 0 came"),
        (seq2seq, {"n_layers": 0}, "decoder.n_layers must be at least 1, 0 came"),
        (seq2seq, {"readout": partial(Frames, n_directions=1)}, "one vector an utterance; choose last_state"),
    ],
)
def test_a_bad_value_is_one_line(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beam": 0}, "decoding.beam must be at least 1 .greedy., 0 came"),
        ({"max_ratio": -1.0}, "decoding.max_ratio and decoding.max_extra must not be negative"),
        ({"max_ratio": math.inf}, "decoding.max_ratio"),
        ({"max_extra": -1}, "decoding.max_extra must not be negative"),
        ({"max_ratio": 0.0, "max_extra": 0}, "nor both 0"),
        ({"length_norm": -1.0}, "decoding.length_norm must not be negative"),
        ({"coverage": 0.5}, "decoding.coverage wants a decoder with attention; set it to 0"),
    ],
)
def test_a_bad_search_is_one_line(changes, message):
    with pytest.raises(ValueError, match=message):
        search(seq2seq(), **{"beam": 2} | changes)


def test_an_unknown_cell_or_rule_names_those_there_are():
    from hydra.errors import MissingConfigException

    for group, known in (("cell", "lstm"), ("rule", "location"), ("readout", "last_state")):
        decoder = "seq2seq" if group == "readout" else "attention"
        with pytest.raises(MissingConfigException, match=rf"(?s)decoder/{group}/lsmt.*{known}"):
            composed(f"decoder={decoder}", f"decoder/{group}=lsmt")
