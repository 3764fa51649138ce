"""Other toolkits' formats, to and from our manifest.

A format is one module here with two functions, found by its name:

    read(source: Source) -> Iterator[Entry | Problem]      every utterance, or what is wrong with its line
    write(utterances: list[Utterance], target: Target) -> None

`read` looks at no audio: an utterance whose format has no duration gets `UNMEASURED`, and `_gather.collect` measures
it. `write` leaves its target whole or not there at all.
"""

import importlib
import math
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from asr_lab.data.manifest import Problem, Utterance
from asr_lab.errors import ConfigError, nearest

UNMEASURED = math.nan
SPLIT_NAMES = ("train", "val", "dev", "valid", "validation", "test")


class Source(NamedTuple):
    """Where to read from, and what a person says about it."""

    path: Path
    root: Path | None  # what relative audio paths are relative to; None: the folder of the file that names them
    columns: dict[str, str]  # our field: the name that it has there ("": it is not to be read)
    quotes: bool  # whether quotes in a table quote
    embedded: Path  # folder for audio that lies inside the source; made when it is needed

    def audio(self, name: str, folder: Path) -> Path:
        """The path of an audio file that a file in `folder` calls `name`."""
        return (self.root or folder) / name


class Target(NamedTuple):
    """Where to write to."""

    path: Path
    shard_bytes: int  # of a tar, about
    seed: int  # of the order inside tars of the training split


class Entry(NamedTuple):
    """An utterance and the place that it was read from."""

    where: str  # file and line, or the like
    utterance: Utterance


class Format(Protocol):
    """What a module of this package offers."""

    def read(self, source: Source) -> Iterator[Entry | Problem]: ...

    def write(self, utterances: list[Utterance], target: Target) -> None: ...


def names() -> list[str]:
    """All formats, from the folder."""
    return [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]


def load(name: str) -> Format:
    """
    Raises:
        ConfigError: there is no such format.
    """
    if name not in names():
        raise ConfigError(f"no format '{name}'{nearest(name, names())}")
    return importlib.import_module(f"{__name__}.{name}")  # pyright: ignore[reportReturnType]
