"""The label-synchronous search finds what enumeration finds, and ends as it promises."""

import itertools
import math

import pytest
import torch

from asr_lab.decoding.label_sync import Ranking, Term, label_sync, label_sync_scores

V = 3
PLAIN = Ranking(length_norm=0.0, label_bonus=0.0, coverage=0.0, coverage_floor=0.01)


class Table:
    """A bigram of its own for each utterance, with attention that depends on the last label."""

    def __init__(self, n: int, seed: int, n_frames: int = 5):
        g = torch.Generator().manual_seed(seed)
        self.table = (2 * torch.randn(n, V + 1, V + 1, generator=g)).log_softmax(dim=-1)  # row V: at the beginning
        self.attention = torch.randn(n, V + 1, n_frames, generator=g).softmax(dim=-1)

    def begin(self):
        n = len(self.table)
        return torch.arange(n), torch.full((n,), V)

    def scores(self, state):
        return self.table[state]

    def attended(self, state):
        return self.attention[state]

    def advance(self, state, labels):
        assert ((labels >= 0) & (labels < V)).all(), "the end is never advanced over"
        return state[0], labels

    def select(self, state, rows):
        return state[0][rows], state[1][rows]

    def score(self, u: int, labels: tuple[int, ...]) -> float:
        path = [V, *labels, V]
        return sum(self.table[u, a, b].item() for a, b in itertools.pairwise(path))


def everything(n_most: int) -> list[tuple[int, ...]]:
    return [s for n in range(n_most + 1) for s in itertools.product(range(V), repeat=n)]


def searched(table: Table, beam: int, n_most: int = 3, ranking: Ranking = PLAIN, more: tuple = ()):
    n, n_frames = len(table.table), table.attention.shape[2]
    terms = [Term(1.0, table, table.begin()), *more]
    return label_sync(terms, torch.full((n,), n_frames), torch.full((n,), n_most), beam, ranking)


@pytest.mark.parametrize("seed", range(5))
def test_a_huge_beam_lists_everything_in_order(seed):
    table = Table(2, seed)
    for u, found in enumerate(searched(table, beam=100)):
        truth = sorted(((table.score(u, s), s) for s in everything(3)), reverse=True)
        assert [tuple(h.labels) for h in found] == [s for _, s in truth]
        assert [h.score for h in found] == pytest.approx([score for score, _ in truth], abs=1e-5)


def test_beam_of_one_is_the_best_label_each_time():
    table = Table(8, 0)
    for u, [found] in enumerate(searched(table, beam=1, n_most=6)):
        last, labels = V, []
        while len(labels) < 6:
            best = int(table.table[u, last].argmax())
            if best == V:
                break
            labels.append(best)
            last = best
        assert found.labels == labels
        assert found.score == pytest.approx(table.score(u, tuple(labels)), abs=1e-5)
