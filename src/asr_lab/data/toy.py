"""Batches of toy landscapes, drawn as they are asked for."""

from collections.abc import Iterator

from torch.utils.data import Dataset, Sampler

from asr_lab.data.loader import ResumableLoader
from asr_lab.landscapes import Landscape, generator_of
from asr_lab.types import ToyBatch

SPLITS = ("train", "val", "test")


class ToyData:
    """Loaders whose batches follow from (seed, split, epoch, number, rank) alone.

    In training each process draws its own; val and test are the same in every epoch and every process.
    """

    def __init__(self, landscape: Landscape, seed: int):
        self.landscape, self.seed = landscape, seed

    def loader(self, split: str, rank: int = 0, world_size: int = 1) -> ResumableLoader:
        is_train = split == "train"
        draws = _Draws(self.landscape, (self.seed, SPLITS.index(split) + 1, rank if is_train else 0))
        n = self.landscape.n_batches if is_train else self.landscape.n_scored
        return ResumableLoader(draws, _Numbers(n, by_epoch=is_train), n_workers=0)


class _Numbers(Sampler):
    """Yields (epoch, number of the batch)."""

    def __init__(self, n: int, by_epoch: bool):
        self.n, self.by_epoch = n, by_epoch
        self.epoch = 0
        self.start = 0  # batches to leave out: a resumed run has seen them

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch if self.by_epoch else 0

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[tuple[int, int]]:
        start, self.start = self.start, 0
        for number in range(start, self.n):
            yield self.epoch, number


class _Draws(Dataset):
    def __init__(self, landscape: Landscape, stream: tuple[int, ...]):
        self.landscape, self.stream = landscape, stream

    def __getitem__(self, place: tuple[int, int]) -> ToyBatch:
        return ToyBatch(self.landscape.draw(generator_of(*self.stream, *place)))
