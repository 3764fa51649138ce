"""Which utterances form a batch: buckets of similar duration, reproducible and the same for any number of workers."""

import math
import random
from collections.abc import Iterator

from torch.utils.data import Sampler

from asr_lab.errors import ConfigError


class DurationBuckets(Sampler):
    """Batches of at most `batch_seconds` of padded audio, drawn inside `n_buckets` duration buckets of equal seconds.

    Yields `(epoch, [indices])`. Each epoch shuffles inside the buckets and then the batches, by (seed, epoch) alone;
    the number of batches is the same in every epoch. With `world_size` processes each gets every world_size-th batch;
    in training the list is filled up (by repeating its first batches) so that all processes take as many steps.
    `reshuffle=False` repeats the first epoch's batches. `shuffle=False` gives the utterances in order of duration,
    every one exactly once.
    """

    def __init__(
        self,
        durations: list[float],
        shuffle: bool,
        seed: int,
        batch_seconds: float,
        n_buckets: int,
        reshuffle: bool,
        rank: int = 0,
        world_size: int = 1,
    ):
        if not batch_seconds > 0 or n_buckets < 1:
            raise ConfigError(
                f"batching: batch_seconds and n_buckets must be positive, {batch_seconds} and {n_buckets} came"
            )
        self.durations, self.shuffle, self.seed = durations, shuffle, seed
        self.batch_seconds, self.rank, self.world_size = batch_seconds, rank, world_size
        self.reshuffle = reshuffle
        self.epoch = 0
        self.buckets = self._buckets(n_buckets)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        n_batches = len(self._batches(self.epoch))
        if self.shuffle:
            return math.ceil(n_batches / self.world_size)
        return len(range(self.rank, n_batches, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        batches = self._batches(self.epoch)
        if self.shuffle:
            batches += batches[: -len(batches) % self.world_size]
        for batch in batches[self.rank :: self.world_size]:
            yield self.epoch, batch

    def _buckets(self, n_buckets: int) -> list[list[int]]:
        order = sorted(range(len(self.durations)), key=lambda i: (self.durations[i], i))
        share = sum(self.durations) / n_buckets
        buckets: list[list[int]] = [[]]
        seconds = 0.0
        for i in order:
            if seconds >= share * len(buckets):
                buckets.append([])
            buckets[-1].append(i)
            seconds += self.durations[i]
        return buckets

    def _batches(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"batches {self.seed} {epoch if self.reshuffle else 0}")
        batches = []
        for members in self.buckets:
            bucket = list(members)
            if self.shuffle:
                rng.shuffle(bucket)
            longest = max(self.durations[i] for i in bucket)
            size = max(1, int(self.batch_seconds / longest))
            batches += [bucket[start : start + size] for start in range(0, len(bucket), size)]
        if self.shuffle:
            rng.shuffle(batches)
        return batches
