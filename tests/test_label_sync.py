"""The label-synchronous search finds what enumeration finds, ranks as it says, and ends as it promises."""

import itertools
import math

import pytest
import torch

from asr_lab.decoding.label_sync import Ranking, Term, label_sync, label_sync_scores
from asr_lab.layers.shared_memory import SharedMemory

V = 3
PLAIN = {"length_norm": 0.0, "label_bonus": 0.0, "coverage": 0.0, "coverage_floor": 0.01}


class Table:
    """A bigram of its own for each utterance, with attention that depends on the last label."""

    def __init__(self, n: int, seed: int, n_frames: int = 5):
        g = torch.Generator().manual_seed(seed)
        self.table = (2 * torch.randn(n, V + 1, V + 1, generator=g)).log_softmax(dim=-1)  # row V: at the beginning
        self.attention = torch.randn(n, V + 1, n_frames, generator=g).softmax(dim=-1)
        self.lens = torch.full((n,), n_frames)
        self.n_steps = 0

    @classmethod
    def of(cls, *tables: list[list[float]]) -> "Table":
        """One utterance each, from probabilities."""
        made = cls(len(tables), 0)
        made.table = torch.tensor(tables).log()
        return made

    def begin(self):
        n = len(self.table)
        return torch.arange(n), torch.full((n,), V)

    def scores(self, state):
        self.n_steps += 1
        return self.table[state]

    def attended(self, state):
        return self.attention[state]

    def advance(self, state, labels):
        assert ((labels >= 0) & (labels < V)).all(), "the end is never advanced over"
        return state[0], labels

    def select(self, state, rows):
        return state[0][rows], state[1][rows]

    def score(self, u: int, labels: tuple[int, ...]) -> float:
        return sum(self.table[u, a, b].item() for a, b in itertools.pairwise([V, *labels, V]))


def everything(n_most: int) -> list[tuple[int, ...]]:
    return [s for n in range(n_most + 1) for s in itertools.product(range(V), repeat=n)]


def searched(table: Table, beam: int, n_most: int | list[int] = 3, more: tuple = (), **ranking: float):
    most = torch.tensor([n_most] * len(table.lens) if isinstance(n_most, int) else n_most)
    terms = [Term(1.0, table, table.begin()), *more]
    return label_sync(terms, table.lens, most, beam, Ranking(**(PLAIN | ranking)))


def forced(table: Table, sequences: list[list[int]], **ranking: float) -> list[float]:
    return label_sync_scores([Term(1.0, table, table.begin())], table.lens, sequences, Ranking(**(PLAIN | ranking)))


@pytest.mark.parametrize("seed", range(5))
def test_a_huge_beam_lists_everything_in_order(seed):
    table = Table(2, seed)
    for u, found in enumerate(searched(table, beam=100)):
        truth = sorted(((table.score(u, s), s) for s in everything(3)), reverse=True)
        assert [tuple(h.labels) for h in found] == [s for _, s in truth]
        assert [h.score for h in found] == pytest.approx([score for score, _ in truth], abs=1e-5)


@pytest.mark.parametrize(("name", "value"), [("length_norm", 0.8), ("label_bonus", 1.5), ("coverage", 0.7)])
def test_rankings_by_hand(name, value):
    """Each changes what comes first, and every score is that of the formula."""

    def by_hand(table, u, labels):
        total, n = table.score(u, labels), len(labels)
        if name == "length_norm":
            return total / ((5 + n) / 6) ** value
        if name == "label_bonus":
            return total + value * n
        seen = [sum(table.attention[u, last, frame].item() for last in (V, *labels)) for frame in range(5)]
        return total + value * sum(math.log(min(max(a, 0.01), 1)) for a in seen)

    changed = 0
    for seed in range(6):
        table = Table(2, seed)
        n_best = searched(table, beam=100, **{name: value})
        for u, (found, plain) in enumerate(zip(n_best, searched(table, beam=100), strict=True)):
            truth = sorted(((by_hand(table, u, s), s) for s in everything(3)), reverse=True)
            assert [h.score for h in found] == pytest.approx([score for score, _ in truth], abs=1e-4)
            assert tuple(found[0].labels) == truth[0][1]
            changed += found[0].labels != plain[0].labels
        for rank in (0, 7, 39):
            sequences = [found[rank].labels for found in n_best]
            expected = pytest.approx([found[rank].score for found in n_best], abs=1e-4)
            assert forced(table, sequences, **{name: value}) == expected
    assert changed


def test_an_unseen_frame_counts_with_the_floor():
    table = Table(1, 0)
    table.attention[:] = torch.tensor([1.0, 0, 0, 0, 0])
    assert forced(table, [[]], coverage=2.0, coverage_floor=0.1) == pytest.approx(
        [table.score(0, ()) + 2 * 4 * math.log(0.1)], abs=1e-4
    )


def test_frames_behind_an_utterance_are_not_missed():
    table = Table(2, 0)
    table.attention[1, :, 3:] = 0
    table.lens = torch.tensor([5, 3])
    together = forced(table, [[0, 1], [0, 1]], coverage=1.0)
    table.attention[1, :, 3:] = 1
    assert forced(table, [[0, 1], [0, 1]], coverage=1.0) == together


def test_beam_of_one_is_the_best_label_each_time():
    table = Table(8, 0)
    for u, [found] in enumerate(searched(table, beam=1, n_most=6)):
        last, labels = V, []
        while len(labels) < 6 and (best := int(table.table[u, last].argmax())) != V:
            labels.append(best)
            last = best
        assert found.labels == labels
        assert found.score == pytest.approx(table.score(u, tuple(labels)), abs=1e-5)
        assert found.frames == [int(table.attention[u, x].argmax()) for x in [V, *labels][:-1]]


def test_greedys_hypothesis_survives_a_beam_that_prunes_it():
    """After label 0 all goes on evenly, so that a beam of 2 drops it for 1 and 2, which turn out to have no end."""
    table = Table.of([[0.34, 0.33, 0.329, 0.001], [0, 1, 0, 1e-9], [0, 0, 1, 1e-9], [0.4, 0.3, 0.3, 0]])
    [[greedy]] = searched(table, beam=1)
    assert greedy.labels == [0, 0, 0]
    [found] = searched(table, beam=2)
    assert found[0].labels == [0, 0, 0]
    assert found[0].score == pytest.approx(greedy.score)
    assert found[1].labels in ([1, 1, 1], [2, 2, 2])


@pytest.mark.parametrize("beam", [1, 2, 4])
def test_each_utterance_has_its_own_most(beam):
    table = Table(3, 2)
    table.table[:, :, V] -= 8  # nobody wants to end
    found = searched(table, beam, n_most=[2, 5, 0], label_bonus=9.0)
    assert [len(n_best[0].labels) for n_best in found] == [2, 5, 0]
    for u, n_best in enumerate(found):
        labels = tuple(n_best[0].labels)
        assert n_best[0].score == pytest.approx(table.score(u, labels) + 9 * len(labels), abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_utterances_do_not_see_each_other(seed):
    table, n_most = Table(5, seed), [3, 9, 1, 6, 4]
    together = searched(table, 3, n_most, length_norm=0.5)
    for u, found in enumerate(together):
        alone = Table(1, 0)
        alone.table, alone.attention = table.table[u : u + 1], table.attention[u : u + 1]
        [also] = searched(alone, 3, n_most[u : u + 1], length_norm=0.5)
        assert [(h.labels, h.frames) for h in found] == [(h.labels, h.frames) for h in also]
        assert [h.score for h in found] == pytest.approx([h.score for h in also], abs=1e-5)


def test_a_sum_of_scorers_is_weighted():
    first, second = Table(2, 0), Table(2, 1)
    more = (Term(0.3, second, second.begin()),)
    for u, found in enumerate(searched(first, 100, more=more)):
        truth = max((first.score(u, s) + 0.3 * second.score(u, s), s) for s in everything(3))
        assert (found[0].score, tuple(found[0].labels)) == (pytest.approx(truth[0], abs=1e-5), truth[1])


def test_a_scorer_of_weight_zero_is_never_asked():
    """Its impossible labels (-inf) would make no number of the sum."""
    table, other = Table(1, 0), Table(1, 1)
    other.table[:] = -math.inf
    assert searched(table, 4, more=(Term(0.0, other, other.begin()),)) == searched(table, 4)
    assert other.n_steps == 0


def test_it_stops_when_nothing_better_can_come():
    """Nine of ten hypotheses end with each label, so 40 labels make nothing better."""
    table = Table.of([[0.05, 0.03, 0.02, 0.9]] * 3 + [[0.5, 0.3, 0.15, 0.05]])
    [found] = searched(table, beam=4, n_most=1000)
    assert [h.labels for h in found] == [[0], [1], [2], []]
    assert table.n_steps < 10


def test_where_everything_is_impossible_there_is_still_an_answer():
    table = Table(1, 0)
    table.table[:] = -math.inf
    [[found]] = searched(table, beam=3)
    assert (found.labels, found.score) == ([], -math.inf)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5], [1, 0, 3, 3, 5, 4], [2, 3], [5, 0, 2], [0, 0, 1, 4], [3], []])
def test_memory_goes_on_being_shared_where_it_can(rows):
    """Whatever rows are chosen, in whatever order, each keeps its utterance's frames."""
    frames = torch.randn(3, 4, 2)
    memory = SharedMemory((frames,), 2)
    chosen = memory.select(torch.tensor(rows, dtype=torch.long))
    assert torch.equal(chosen.tensors[0].repeat_interleave(chosen.width, dim=0), frames[torch.tensor(rows).long() // 2])
    if rows in ([0, 1, 2, 3, 4, 5], [1, 0, 3, 3, 5, 4]):
        assert chosen.tensors[0] is frames


@pytest.mark.parametrize(
    ("key", "value"), [("length_norm", -0.1), ("coverage", -1.0), ("coverage_floor", 0.0), ("coverage_floor", 1.5)]
)
def test_a_bad_ranking_is_one_line(key, value):
    with pytest.raises(ValueError, match=f"decoding.{key} .*{value} came"):
        Ranking(**(PLAIN | {key: value}))
