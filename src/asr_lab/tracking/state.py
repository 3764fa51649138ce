"""What is known of a run's copy somewhere else, in a small file beside the run."""

import json
from pathlib import Path
from typing import Any

from asr_lab.files import write_json


class State:
    """`<kind>.json` in a run's folder: its id, project and address there, and `complete`, whether all has arrived.

    With `is_kept` false nothing is read or written: a copy that is none of the run's own.
    """

    def __init__(self, folder: Path, kind: str, is_kept: bool = True):
        self.kind, self.path, self.is_kept = kind, Path(folder) / f"{kind}.json", is_kept
        self.values: dict[str, Any] = {}
        try:
            if is_kept:
                self.values = json.loads(self.path.read_text())
        except (OSError, ValueError):  # no copy yet; a broken file knows nothing
            pass

    def __getitem__(self, key: str) -> Any:
        return self.values.get(key)

    def write(self, **values: Any) -> None:
        self.values |= values
        if self.is_kept:
            write_json(self.path, self.values)


def one_line(error: BaseException) -> str:
    """An error in at most 200 characters"""
    return " ".join(f"{error or type(error).__name__}".split())[:200]
