"""CTC: loss against enumeration of all paths, search by hand, frames needed."""

import itertools

import pytest
import torch

from asr_lab.decoders.ctc import CtcDecoder
from asr_lab.decoding.ctc import CtcSearch
from asr_lab.lm import NoFusion


@pytest.fixture
def decoder() -> CtcDecoder:
    torch.manual_seed(0)
    return CtcDecoder(in_dim=5, n_labels=3, dropout=0.0, loss_on_cpu=False).eval()


def search(decoder, lm=None, **keys):
    values = {"beam": 1, "n_tokens": 100, "min_log_prob": -torch.inf, "prior_weight": 0.0} | keys
    return CtcSearch(decoder, lm or NoFusion(), **values)


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(k - 1 for k, _ in itertools.groupby(path) if k)


@pytest.mark.parametrize("labels", [[0], [0, 0], [0, 1], [2, 2, 1], [1, 0, 1]])
def test_loss_is_the_sum_over_all_paths(decoder, labels):
    hidden = torch.randn(1, 5, 5, generator=torch.Generator().manual_seed(1))
    log_probs = decoder.log_probs(hidden)[0].double()
    total = torch.logsumexp(
        torch.stack(
            [
                sum(log_probs[t, k] for t, k in enumerate(path))
                for path in itertools.product(range(4), repeat=5)
                if collapse(path) == tuple(labels)
            ]
        ),
        dim=0,
    )
    got = decoder.loss(hidden, torch.tensor([5]), torch.tensor([labels]), torch.tensor([len(labels)]))
    torch.testing.assert_close(got.double(), -total[None], rtol=1e-5, atol=1e-5)


def test_loss_of_a_batch_is_the_loss_of_each(decoder):
    hidden = torch.randn(2, 6, 5)
    labels = torch.tensor([[0, 1, 2], [1, 0, 0]])
    together = decoder.loss(hidden, torch.tensor([6, 3]), labels, torch.tensor([3, 1]))
    alone = [
        decoder.loss(hidden[:1], torch.tensor([6]), labels[:1], torch.tensor([3])),
        decoder.loss(hidden[1:, :3], torch.tensor([3]), labels[1:, :1], torch.tensor([1])),
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_impossible_labels_are_infinite_not_hidden(decoder):
    loss = decoder.loss(torch.randn(1, 2, 5), torch.tensor([2]), torch.tensor([[1, 1]]), torch.tensor([2]))
    assert torch.isinf(loss).all()


def test_greedy_merges_repeats_and_drops_blanks(decoder):
    path = [0, 1, 1, 0, 1, 2, 2, 3, 0, 3]
    decoder.log_probs = lambda hidden: torch.nn.functional.one_hot(torch.tensor([path, path]), 4).float().log()
    [full], [short] = search(decoder)(torch.zeros(2, 10, 5), torch.tensor([10, 3]))
    assert full.labels == [0, 0, 1, 2, 2]
    assert full.score == 0.0
    assert full.frames == [1, 4, 5, 7, 9]
    assert short.labels == [0]  # what lies beyond the length is not read


def test_greedy_score_is_the_score_of_its_path(decoder):
    hidden = torch.randn(3, 7, 5)
    lens = torch.tensor([7, 4, 1])
    best = decoder.log_probs(hidden).max(dim=-1).values
    for i, [hyp] in enumerate(search(decoder)(hidden, lens)):
        assert hyp.score == pytest.approx(best[i, : lens[i]].sum().item(), rel=1e-5)


def test_min_frames_counts_repeats(decoder):
    labels = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0], [2, 2, 2, 2]])
    assert decoder.min_frames(labels, torch.tensor([4, 2, 3])).tolist() == [6, 2, 5]


def test_loss_on_cpu_is_the_same_loss(decoder):
    hidden = torch.randn(1, 6, 5)
    args = (hidden, torch.tensor([6]), torch.tensor([[0, 1]]), torch.tensor([2]))
    usual = decoder.loss(*args)
    decoder.loss_on_cpu = True
    assert torch.equal(decoder.loss(*args), usual)
