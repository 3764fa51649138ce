"""Where a run can be watched. The run's own files are the truth; every other place is a copy and may fail."""

from pathlib import Path
from typing import Any, NamedTuple


class RunInfo(NamedTuple):
    """What a logger is told about a run."""

    id: str  # the fingerprint
    name: str  # the cell's folder
    experiment: str
    factors: dict[str, Any]
    config: dict[str, Any]  # resolved
    folder: Path


__all__ = ["RunInfo"]
