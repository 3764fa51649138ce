"""What detectors found in a run so far, each once until it is over."""

from pathlib import Path
from typing import Any

from asr_lab.files import read_jsonl, write_jsonl
from asr_lab.gradients.detect import Finding

Key = tuple[str, str | None]  # kind, layer


class Findings:
    """A finding is new when the same kind was not seen in the same layer the time before.

    At most `max_rows` are kept with all they say; all are counted.
    """

    def __init__(self, max_rows: int):
        if max_rows < 1:
            raise ValueError(f"detectors.max_findings must be at least 1, {max_rows} came")
        self.max_rows = max_rows
        self.rows: list[dict[str, Any]] = []
        self._open: set[Key] = set()
        self._seen: dict[Key, list[int]] = {}  # first step, last step, how often it began

    def add(self, found: list[Finding], kinds: set[str]) -> list[Finding]:
        """Takes what looks for `kinds` gave now; those that were open and are not in it are over. Returns the new."""
        now = {(f.kind, f.layer) for f in found}
        new = [f for f in found if (f.kind, f.layer) not in self._open]
        for f in found:
            first, _, count = self._seen.get((f.kind, f.layer), (f.step, f.step, 0))
            self._seen[f.kind, f.layer] = [first, f.step, count]
        for f in new:
            self._seen[f.kind, f.layer][2] += 1
            if len(self.rows) < self.max_rows:
                self.rows.append(f._asdict() | {"ids": list(f.ids)})
        self._open = {key for key in self._open if key[0] not in kinds} | now
        return new

    def count(self, finding: Finding) -> int:
        """How often this kind began in this layer."""
        return self._seen[finding.kind, finding.layer][2]

    def summary(self) -> list[dict[str, Any]]:
        """One row a kind and layer, in the order in which they were found."""
        names = ("first_step", "last_step", "count")
        return [
            {"kind": kind, "layer": layer} | dict(zip(names, seen, strict=True))
            for (kind, layer), seen in self._seen.items()
        ]

    def write(self, file: Path) -> None:
        """
        Raises:
            DiskFullError: no space; an older file stays.
        """
        write_jsonl(file, self.rows)

    def restore(self, file: Path, step: int, state: dict[str, Any]) -> None:
        """As it was at a checkpoint before `step`: what was found later will be found again."""
        self.rows = [row for row in read_jsonl(file) if row["step"] < step] if file.exists() else []
        self._open = {(kind, layer) for kind, layer in state["open"]}
        self._seen = {(kind, layer): list(seen) for kind, layer, seen in state["seen"]}

    def state_dict(self) -> dict[str, Any]:
        open_ones = sorted(self._open, key=str)
        return {"open": [list(k) for k in open_ones], "seen": [[*k, list(v)] for k, v in self._seen.items()]}
