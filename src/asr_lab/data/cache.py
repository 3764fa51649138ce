"""Where a run's features come from: computed anew each time, or once and kept (see store.py)."""

import os
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asr_lab.data.block import Block
from asr_lab.data.manifest import Utterance
from asr_lab.data.pipeline import Pipeline
from asr_lab.data.store import Store, Wanted
from asr_lab.frontend.cmvn import Moments
from asr_lab.paths import cache_dir


class NoCache:
    """Everything is computed anew whenever it is asked for."""

    def open(self, pipeline: Pipeline, identity: dict[str, Any], features: Wanted, audio: Wanted) -> "Live":
        return Live(pipeline)


class Live:
    """Features and audio straight from the files."""

    knows_lengths = False

    def __init__(self, pipeline: Pipeline):
        self.pipeline = pipeline

    def audio(self, u: Utterance, speed: float) -> Tensor:
        """(S,) float32"""
        return self.pipeline.audio(u, speed)

    def features(self, u: Utterance, speed: float) -> tuple[Tensor, Moments]:
        """(T, F) float32, not normalised, and its moments"""
        feats = self.pipeline.features(u, speed)
        return feats, Moments.of(feats)

    def moments(self, u: Utterance, speed: float) -> Moments:
        return self.features(u, speed)[1]

    def n_frames(self, u: Utterance, speed: float) -> int:
        """As the manifest's duration says."""
        return self.pipeline.frontend.n_frames(self.pipeline.n_samples(u, speed))


class Cache:
    """Features at every speed that augmentation may draw; audio instead where augmentation works on audio."""

    def __init__(self, dtype: str, n_workers: int | str):
        if dtype not in ("float16", "float32"):
            raise ValueError(f"dtype is float16 or float32, {dtype!r} came")
        if n_workers != "auto" and (isinstance(n_workers, str) or n_workers < 1):
            raise ValueError(f"n_workers is auto or a positive number of processes, {n_workers!r} came")
        self.dtype, self.n_workers = dtype, n_workers

    def open(self, pipeline: Pipeline, identity: dict[str, Any], features: Wanted, audio: Wanted) -> "Stored":
        """Compute what is missing and open it all.

        Args:
            identity: configuration that the numbers depend on, by group.

        Raises:
            DataError: an audio file cannot be read.
            DiskFullError: the cache's folder is full or cannot be written.
        """
        n_workers = len(os.sched_getaffinity(0)) if self.n_workers == "auto" else int(self.n_workers)
        stores = {}
        for kind, wanted in (("features", features), ("audio", audio)):
            if wanted:
                dtype = "int16" if kind == "audio" and self.dtype == "float16" else self.dtype
                stores[kind] = Store(pipeline, kind, identity, wanted, dtype)
                stores[kind].fill(n_workers)
        return Stored(stores, Live(pipeline))


class Stored:
    """Features and audio from the cache."""

    knows_lengths = True

    def __init__(self, stores: dict[str, Store], live: Live):
        self.stores, self.live = stores, live

    def audio(self, u: Utterance, speed: float) -> Tensor:
        """(S,) float32"""
        block, row = self.stores["audio"].find(u, speed)
        samples = torch.from_numpy(block.values(row)[:, 0].astype("float32"))
        return samples / 32768 if block.dtype == "int16" else samples

    def features(self, u: Utterance, speed: float) -> tuple[Tensor, Moments]:
        """(T, F) float32, not normalised, and its moments"""
        if not self.stores["features"].has(
            u, speed
        ):  # what training does not ask for, such as its own split unaugmented
            return self.live.features(u, speed)
        block, row = self.stores["features"].find(u, speed)
        return torch.from_numpy(block.values(row).astype("float32")), _moments(block, row)

    def moments(self, u: Utterance, speed: float) -> Moments:
        return _moments(*self.stores["features"].find(u, speed))

    def n_frames(self, u: Utterance, speed: float) -> int:
        if not self.stores["features"].has(u, speed):
            return self.live.n_frames(u, speed)
        block, row = self.stores["features"].find(u, speed)
        return block.n_frames(row)


def _moments(block: Block, row: int) -> Moments:
    total, squares = torch.from_numpy(block.moments(row).copy())
    return Moments(block.n_frames(row), total, squares)


class Folder(NamedTuple):
    """What a folder of the cache is, for people."""

    path: Path
    n_bytes: int
    days_unused: float

    @property
    def name(self) -> str:
        return self.path.name


def folders() -> list[Folder]:
    """Every folder of the cache, by name."""
    found = []
    for about in sorted((cache_dir() / "features").glob("*/about.json")):
        size = sum(path.stat().st_size for path in about.parent.iterdir())
        found.append(Folder(about.parent, size, (time.time() - about.stat().st_mtime) / 86400))
    return found


def remove_folder(folder: Folder) -> None:
    """Processes that have it open keep what they have mapped."""
    shutil.rmtree(folder.path)
