"""Where a run can be watched. The run's own files are the truth; every other place is a copy and may fail."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np


class RunInfo(NamedTuple):
    """What a logger is told about a run."""

    id: str  # the fingerprint
    name: str  # the cell's folder
    experiment: str
    factors: dict[str, Any]
    config: dict[str, Any]  # resolved
    folder: Path


class Utterance(NamedTuple):
    """A test utterance to show."""

    row: dict[str, Any]  # of the run's rows_file
    audio: tuple[np.ndarray, int] | None  # samples (S,) and their rate; None where they are not here


class End(NamedTuple):
    """What a copy is told when its run's process ends."""

    status: str  # of result.json; "running" where the process was killed
    result: dict[str, Any]  # all of it
    utterances: list[Utterance]  # of a run that is done


class Copy(Protocol):
    """A place that a run's files are copied to. All but `abandon` may raise anything, or never come back."""

    def open(self) -> int:
        """Start, or go on. Returns the first step that is missing there."""
        ...

    def log(self, step: int, values: dict[str, float], gradients: dict[str, np.ndarray]) -> None:
        """All values of a step; `gradients`: log10 |g| of sampled elements of each layer, empty at most steps."""
        ...

    def alert(self, title: str, text: str, is_error: bool) -> None: ...

    def finish(self, end: End) -> str:
        """Returns "" when everything is there, otherwise what is missing."""
        ...

    def abandon(self) -> None:
        """Let go of a client that has failed, so that `open` can start another."""
        ...


__all__ = ["Copy", "End", "RunInfo", "Utterance"]
