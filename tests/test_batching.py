"""Duration buckets: bounds, shuffling, ranks, a constant number of batches, little padding; a place to go on from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from asr_lab.data.batching import DurationBuckets, pack, split_largest
from asr_lab.data.loader import ResumableLoader
from asr_lab.errors import ConfigError

DURATIONS = np.array([0.5 + 0.07 * (i * 37 % 101) for i in range(101)])


def buckets(durations=DURATIONS, **changes) -> DurationBuckets:
    values = {
        "lengths": lambda epoch: np.asarray(durations),
        "shuffle": True,
        "seed": 3,
        "batch_seconds": 20.0,
        "n_buckets": 6,
        "reshuffle": True,
        "sorted_first_epoch": False,
    }
    return DurationBuckets(**{**values, **changes})


def padded(sampler, durations=DURATIONS) -> list[float]:
    return [max(durations[i] for i in batch) * len(batch) for _, batch in sampler]


def test_an_epoch_has_every_utterance_once():
    sampler = buckets()
    for epoch in range(3):
        sampler.set_epoch(epoch)
        items = list(sampler)
        assert len(items) == len(sampler)
        assert {e for e, _ in items} == {epoch}
        assert sorted(i for _, batch in items for i in batch) == list(range(101))


def test_batches_stay_within_their_seconds_and_are_shuffled():
    sampler = buckets()
    first = list(sampler)
    assert max(padded(first)) <= 20.0
    sampler.set_epoch(1)
    second = list(sampler)
    assert [b for _, b in first] != [b for _, b in second]
    assert len(first) == len(second)
    assert list(buckets(seed=4)) != first
    assert list(buckets()) == first


def test_lengths_that_change_with_the_epoch_change_no_number_of_batches():
    """Speed perturbation: batches are made for the lengths that utterances have in this epoch."""
    factors = [np.random.default_rng(e).choice([0.9, 1.0, 1.1], 101) for e in range(20)]
    sampler = buckets(lengths=lambda epoch: DURATIONS / factors[epoch])
    for epoch in range(20):
        sampler.set_epoch(epoch)
        items = list(sampler)
        assert len(items) == len(sampler)
        assert max(padded(items, DURATIONS / factors[epoch])) <= 20.0
        assert sorted(i for _, batch in items for i in batch) == list(range(101))


def test_an_epoch_that_outgrows_its_room_keeps_its_number_of_batches():
    sampler = buckets(lengths=lambda epoch: DURATIONS * (1.0 if epoch == 0 else 1.3))
    sampler.set_epoch(1)
    assert len(list(sampler)) == len(sampler)


def test_batches_can_stay_the_same():
    sampler = buckets(reshuffle=False)
    first = [b for _, b in sampler]
    sampler.set_epoch(5)
    assert [b for _, b in sampler] == first


def test_the_first_epoch_can_go_from_short_to_long():
    sampler = buckets(sorted_first_epoch=True)
    longest = [max(DURATIONS[i] for i in b) for _, b in sampler]
    assert longest == sorted(longest)
    sampler.set_epoch(1)
    longest = [max(DURATIONS[i] for i in b) for _, b in sampler]
    assert longest != sorted(longest)


def test_buckets_waste_less_than_random_order():
    waste = [sum(padded(buckets(n_buckets=n))) / sum(DURATIONS) - 1 for n in (1, 6, 48)]
    assert waste[1] < 0.5 * waste[0]
    assert waste[2] < 0.5 * waste[1]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_an_epoch(world):
    parts = [list(buckets(rank=r, world_size=world)) for r in range(world)]
    assert len({len(p) for p in parts}) == 1  # every rank takes as many steps
    assert {i for p in parts for _, b in p for i in b} == set(range(101))
    everything = list(buckets())
    assert [parts[k % world][k // world] for k in range(len(everything))] == everything  # the same batches in order
    exact = [list(buckets(rank=r, world_size=world, shuffle=False)) for r in range(world)]
    assert sorted(i for p in exact for _, b in p for i in b) == list(range(101))
    assert [len(p) for p in exact] == [len(buckets(rank=r, world_size=world, shuffle=False)) for r in range(world)]


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_rank_has_a_batch_where_there_are_utterances_enough(shuffle):
    parts = [list(buckets([1.0] * 4, shuffle=shuffle, rank=r, world_size=3)) for r in range(3)]
    assert all(parts)
    assert {i for p in parts for _, b in p for i in b} == set(range(4))


def test_utterance_longer_than_a_batch_stands_alone():
    assert sorted(len(b) for _, b in buckets([50.0, 1.0], n_buckets=2)) == [1, 1]


@pytest.mark.parametrize("bad", [{"batch_seconds": 0}, {"n_buckets": 0}])
def test_batching_values_that_cannot_be(bad):
    with pytest.raises(ConfigError, match="must be positive"):
        buckets(**bad)


lengths = st.lists(st.floats(0.05, 40.0), min_size=1, max_size=80)


@settings(max_examples=60, deadline=None)
@given(lengths, st.floats(1.0, 60.0), st.integers(1, 9), st.booleans())
def test_no_utterance_is_lost_whatever_the_durations(durations, limit, n, shuffle):
    sampler = buckets(durations, batch_seconds=limit, n_buckets=n, shuffle=shuffle)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        items = list(sampler)
        assert len(items) == len(sampler)
        assert sorted(i for _, b in items for i in b) == list(range(len(durations)))
        assert all(b for _, b in items)


@settings(max_examples=60, deadline=None)
@given(lengths, st.floats(1.0, 60.0), st.data())
def test_packing_keeps_order_and_bound(durations, limit, data):
    durations = np.array(durations)
    batches = pack(range(len(durations)), durations, limit)
    assert [i for b in batches for i in b] == list(range(len(durations)))
    assert all(len(b) == 1 or durations[b].max() * len(b) <= limit for b in batches)
    wanted = data.draw(st.integers(len(batches), len(durations)))
    split_largest(batches, wanted)
    assert len(batches) == wanted
    assert sorted(i for b in batches for i in b) == list(range(len(durations)))


# The place in an epoch


class Echo(Dataset):
    def __getitem__(self, item):
        return item


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_loader_goes_on_where_it_was(n_workers):
    whole = ResumableLoader(Echo(), buckets(), n_workers)
    want = list(whole)
    assert whole.state_dict() == {"n_delivered": len(want)}
    half = ResumableLoader(Echo(), buckets(), n_workers)
    batches = iter(half)
    seen = [next(batches) for _ in range(5)]
    rest = ResumableLoader(Echo(), buckets(), n_workers)
    rest.load_state_dict(half.state_dict())
    assert seen + list(rest) == want
    assert len(list(rest)) == len(want)  # the next epoch is whole
    ended = ResumableLoader(Echo(), buckets(), n_workers)
    ended.load_state_dict(whole.state_dict())
    assert list(ended) == want
