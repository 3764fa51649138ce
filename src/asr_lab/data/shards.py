"""Batches for audio that lies in tar shards: each loading process reads one shard after another."""

import math
import random
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

from asr_lab.data.batching import ROOM, ordered, pack, split_largest
from asr_lab.errors import ConfigError

Batches = list[list[int]]


class ShardBuckets(Sampler):
    """Batches of at most `batch_seconds` of padded audio, drawn inside `n_buckets` duration buckets of one shard.

    `lengths(epoch)` gives the seconds (N,) of every utterance in that epoch and `shards` the file that each lies in.
    Yields `(epoch, [indices])`. Each epoch hands the shards, shuffled by (seed, epoch), to `n_streams` streams; batch k
    of all processes comes from stream k mod n_streams. A `DataLoader` deals a process's items to its workers in turn:
    where n_streams is a multiple of world_size * n_workers, a worker meets its own streams alone, and uses up a shard
    of each before the next. Batches and their order do not depend on the number of workers. When no shard is left, a
    stream that has run dry takes half of what the longest one has; nothing is lost or done twice.

    In training every epoch has the same number of batches, and the list is filled up, by batches that the same stream
    has just had, until all processes take as many steps. `reshuffle=False` repeats the first epoch's batches.
    `shuffle=False` leaves shards and utterances in order, every utterance exactly once.
    """

    def __init__(
        self,
        lengths: Callable[[int], np.ndarray],
        shards: list[str],
        shuffle: bool,
        seed: int,
        batch_seconds: float,
        n_buckets: int,
        n_streams: int,
        reshuffle: bool,
        rank: int = 0,
        world_size: int = 1,
    ):
        if not batch_seconds > 0 or n_buckets < 1 or n_streams < 1:
            raise ConfigError(
                "batching: batch_seconds, n_buckets and n_streams must be positive, "
                f"{batch_seconds}, {n_buckets} and {n_streams} came"
            )
        self.lengths, self.shuffle, self.seed, self.reshuffle = lengths, shuffle, seed, reshuffle
        self.batch_seconds, self.n_buckets, self.n_streams = batch_seconds, n_buckets, n_streams
        self.rank, self.world_size = rank, world_size
        numbers = {shard: k for k, shard in enumerate(dict.fromkeys(shards))}
        self.shard_of = [numbers[shard] for shard in shards]
        self.members: list[list[int]] = [[] for _ in numbers]
        for i, k in enumerate(self.shard_of):
            self.members[k].append(i)
        self.epoch = 0
        self.start = 0  # batches of this process to leave out: a resumed run has seen them
        self.n_batches = sum(map(len, self._packed(0, None)))
        if shuffle and reshuffle:
            self.n_batches = math.ceil(self.n_batches * (1 + ROOM))
        # A process without any batch would keep the others waiting.
        self.n_batches = min(max(self.n_batches, world_size), len(shards))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return math.ceil(self.n_batches / self.world_size)
        return len(range(self.rank, self.n_batches, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        batches = self.planned(self.epoch if self.reshuffle else 0)
        while self.shuffle and len(batches) % self.world_size:
            batches.append(batches[-min(self.n_streams, len(batches))])
        start, self.start = self.start, 0
        for batch in batches[self.rank :: self.world_size][start:]:
            yield self.epoch, batch

    def planned(self, epoch: int) -> Batches:
        """All batches of an epoch, for all processes, in order."""
        shards = self._packed(epoch, self.n_batches)
        if self.shuffle:
            rng = random.Random(f"shards {self.seed} {epoch}")
            for batches in shards:
                rng.shuffle(batches)
            rng.shuffle(shards)
        return interleaved(shards, self.n_streams)

    def _packed(self, epoch: int, n_batches: int | None) -> list[Batches]:
        """The batches of each shard; exactly `n_batches` of them together, if that is given."""
        lengths = self.lengths(epoch)
        rng = random.Random(f"buckets {self.seed} {epoch}") if self.shuffle else None
        shards = [(own, lengths[own], ordered(lengths[own], self.n_buckets, rng)) for own in self.members]
        limit = self.batch_seconds
        batches = [[own[i] for i in batch] for own, long, order in shards for batch in pack(order, long, limit)]
        while n_batches is not None and len(batches) > n_batches:  # a rare epoch that needs more than its room
            limit *= 1 + ROOM / 2
            batches = [[own[i] for i in batch] for own, long, order in shards for batch in pack(order, long, limit)]
        if n_batches is not None:
            split_largest(batches, n_batches)
        by_shard: list[Batches] = [[] for _ in self.members]
        for batch in batches:
            by_shard[self.shard_of[batch[0]]].append(batch)
        return by_shard


def interleaved(shards: list[Batches], n_streams: int) -> Batches:
    """All batches in one list: number k comes from stream k mod n_streams; one that is dry takes the next shard."""
    waiting = deque(shards)
    streams: list[deque[list[int]]] = [deque() for _ in range(n_streams)]
    batches: Batches = []
    for k in range(sum(map(len, shards))):
        stream = streams[k % n_streams]
        while not stream and waiting:
            stream.extend(waiting.popleft())
        if not stream:
            longest = max(streams, key=len)
            for _ in range((len(longest) + 1) // 2):
                stream.appendleft(longest.pop())
        batches.append(stream.popleft())
    return batches
