"""Which utterances form a batch: buckets of similar duration, reproducible and the same for any number of workers."""

import heapq
import math
import random
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from torch.utils.data import Sampler

from asr_lab.errors import ConfigError

# How many more batches an epoch has than its first would need. Shuffling and speed perturbation move the need by a
# few; with room for that, every epoch has the same number, on which schedules of the learning rate rely.
ROOM = 0.02


class DurationBuckets(Sampler):
    """Batches of at most `batch_seconds` of padded audio, drawn inside `n_buckets` duration buckets of equal seconds.

    `lengths(epoch)` gives the seconds (N,) of every utterance as they will be in that epoch, speed perturbation
    included. Yields `(epoch, [indices])`. Each epoch shuffles inside the buckets and then the batches, by (seed, epoch)
    alone. With `world_size` processes each gets every world_size-th batch; in training the list is filled up (by
    repeating its first batches) so that all processes take as many steps. `reshuffle=False` repeats the first epoch's
    batches; `sorted_first_epoch` gives those from short to long (Amodei et al. 2016, SortaGrad). `shuffle=False` gives
    the utterances in order of duration, every one exactly once.
    """

    def __init__(
        self,
        lengths: Callable[[int], np.ndarray],
        shuffle: bool,
        seed: int,
        batch_seconds: float,
        n_buckets: int,
        reshuffle: bool,
        sorted_first_epoch: bool,
        rank: int = 0,
        world_size: int = 1,
    ):
        if not batch_seconds > 0 or n_buckets < 1:
            raise ConfigError(
                f"batching: batch_seconds and n_buckets must be positive, {batch_seconds} and {n_buckets} came"
            )
        self.lengths, self.shuffle, self.seed = lengths, shuffle, seed
        self.batch_seconds, self.n_buckets, self.rank, self.world_size = batch_seconds, n_buckets, rank, world_size
        self.reshuffle, self.sorted_first_epoch = reshuffle, sorted_first_epoch
        self.epoch = 0
        self.start = 0  # batches of this process to leave out: a resumed run has seen them
        self.n_batches = len(self.planned(0, None))
        if shuffle and reshuffle:
            self.n_batches = math.ceil(self.n_batches * (1 + ROOM))
        # A process without any batch would keep the others waiting.
        self.n_batches = min(max(self.n_batches, world_size), len(lengths(0)))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return math.ceil(self.n_batches / self.world_size)
        return len(range(self.rank, self.n_batches, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        epoch = self.epoch if self.reshuffle else 0
        batches = self.planned(epoch, self.n_batches)
        if self.shuffle:
            batches += batches[: -len(batches) % self.world_size]
        start, self.start = self.start, 0
        for batch in batches[self.rank :: self.world_size][start:]:
            yield self.epoch, batch

    def planned(self, epoch: int, n_batches: int | None) -> list[list[int]]:
        """All batches of an epoch, for all processes; exactly `n_batches` of them, if that is given."""
        lengths = self.lengths(epoch)
        rng = random.Random(f"batches {self.seed} {epoch}")
        order = ordered(lengths, self.n_buckets, rng if self.shuffle else None)
        batches = pack(order, lengths, self.batch_seconds)
        limit = self.batch_seconds
        while n_batches is not None and len(batches) > n_batches:  # a rare epoch that needs more than its room
            limit *= 1 + ROOM / 2
            batches = pack(order, lengths, limit)
        if n_batches is not None:
            split_largest(batches, n_batches)
        if self.shuffle and self.sorted_first_epoch and epoch == 0:
            batches.sort(key=lambda batch: max(lengths[i] for i in batch))
        elif self.shuffle:
            rng.shuffle(batches)
        return batches


def ordered(lengths: np.ndarray, n_buckets: int, rng: random.Random | None) -> list[int]:
    """Utterances from long to short, shuffled inside each bucket of equal seconds; without `rng` from short to long."""
    order = np.argsort(lengths, kind="stable")
    if rng is None:
        return order.tolist()
    order = order[::-1]
    reached = np.cumsum(lengths[order])
    edges = np.searchsorted(reached, reached[-1] * np.arange(1, n_buckets) / n_buckets)
    buckets = [bucket.tolist() for bucket in np.split(order, edges)]
    for bucket in buckets:
        rng.shuffle(bucket)
    return [i for bucket in buckets for i in bucket]


def pack(order: Iterable[int], lengths: np.ndarray, limit: float) -> list[list[int]]:
    """Cut `order` into batches whose padded length (longest times number) stays within `limit`; one is always taken.

    A batch may reach over the end of a bucket, so no bucket leaves a small one behind.
    """
    batches: list[list[int]] = []
    batch: list[int] = []
    longest = 0.0
    seconds = lengths.tolist()
    for i in order:
        longest = max(longest, seconds[i])
        if batch and longest * (len(batch) + 1) > limit:
            batches.append(batch)
            batch, longest = [], seconds[i]
        batch.append(i)
    return [*batches, batch] if batch else batches


def split_largest(batches: list[list[int]], n_batches: int) -> None:
    """Halve the largest batches, in place, until there are `n_batches`."""
    by_size = [(-len(batch), k) for k, batch in enumerate(batches)]
    heapq.heapify(by_size)
    while len(batches) < n_batches:
        size, k = heapq.heappop(by_size)
        half = -size // 2
        assert half, "more batches than utterances"
        batches.append(batches[k][half:])
        del batches[k][half:]
        heapq.heappush(by_size, (-half, k))
        heapq.heappush(by_size, (-len(batches[-1]), len(batches) - 1))
