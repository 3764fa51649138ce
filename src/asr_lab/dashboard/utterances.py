"""The utterances of a run: reference and hypothesis side by side, and what changed between two runs."""

import json
import re
from pathlib import Path
from typing import Any

from asr_lab.dashboard.answers import Kept
from asr_lab.dashboard.places import AbsentError, Places
from asr_lab.report.words import align, units

SPLIT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
ORDERS = ("worst", "id", "longest")
MOST = 200  # utterances of one answer


class Hypotheses:
    """Rows of hyps.<split>.jsonl; a line that is no row is counted and left out."""

    def __init__(self, path: Path):
        self.rows: list[dict[str, Any]] = []
        self.n_bad = 0
        with open(path, "rb") as f:
            for line in f:
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                    if not all(isinstance(row[key], str) for key in ("id", "ref", "hyp")):
                        raise ValueError("not texts")
                    row["errors"] = sum(_count(row.get(key)) for key in ("sub", "del", "ins"))
                except (ValueError, KeyError, TypeError, RecursionError):
                    self.n_bad += 1
                    continue
                self.rows.append(row)
        self.by_id = {row["id"]: row for row in self.rows}


class Utterances:
    """The hypotheses of all runs, read once for each content of a file."""

    def __init__(self, places: Places):
        self.places = places
        self._found: Kept[Hypotheses] = Kept(32)

    def splits(self, run: Path) -> list[str]:
        """Test first, then by name."""
        names = [p.name.removeprefix("hyps.").removesuffix(".jsonl") for p in run.glob("hyps.*.jsonl")]
        there = [s for s in names if SPLIT.fullmatch(s) and self.places.stamp(self._file(run, s))]
        return sorted(there, key=lambda s: (s != "test", s))

    def mark(self, run: Path, split: str) -> Any:
        return self.places.stamp(self._file(run, split))

    def hypotheses(self, run: Path, split: str) -> Hypotheses:
        """
        Raises:
            AbsentError: the run has no hypotheses of this split.
        """
        path = self._file(run, split)
        stamp = self.places.stamp(path)
        if stamp is None:
            raise AbsentError(split)
        return self._found.get(path, stamp, lambda: Hypotheses(path))

    def page(self, run: Path, split: str, order: str, find: str, start: int, score: str) -> dict[str, Any]:
        """`MOST` utterances at the most from `start` on, aligned in the units of the score. Raises as `hypotheses`."""
        found = self.hypotheses(run, split)
        words = find.lower().split()
        rows = [r for r in found.rows if all(w in f"{r['id']} {r['ref']} {r['hyp']}".lower() for w in words)]
        if order == "worst":
            rows.sort(key=lambda r: (-r["errors"], len(r["ref"]), r["id"]))
        elif order == "longest":
            rows.sort(key=lambda r: (-len(r["ref"]), r["id"]))
        else:
            rows.sort(key=lambda r: r["id"])
        return {
            "splits": self.splits(run),
            "split": split,
            "total": len(rows),
            "of": len(found.rows),
            "n_bad": found.n_bad,
            "rows": [_shown(row) | {"pairs": pairs(row, score)} for row in rows[start : start + MOST]],
        }

    def changed(self, a: Path, b: Path, split: str, score: str, most: int = MOST) -> list[dict[str, Any]]:
        """Utterances whose hypotheses differ, the largest change of errors first. Raises as `hypotheses`."""
        first, second = self.hypotheses(a, split), self.hypotheses(b, split)
        both = [(row, second.by_id[row["id"]]) for row in first.rows if row["id"] in second.by_id]
        both = [(x, y) for x, y in both if x["ref"] == y["ref"] and x["hyp"].split() != y["hyp"].split()]
        both.sort(key=lambda xy: (-abs(xy[1]["errors"] - xy[0]["errors"]), xy[0]["id"]))
        return [
            _shown(x)
            | {"change": y["errors"] - x["errors"], "pairs": pairs(x, score), "other": pairs(y, score)}
            | {"other_errors": y["errors"]}
            for x, y in both[:most]
        ]

    @staticmethod
    def _file(run: Path, split: str) -> Path:
        if not SPLIT.fullmatch(split):
            raise AbsentError(split)
        return run / f"hyps.{split}.jsonl"


def pairs(row: dict[str, Any], score: str) -> list[list[str]]:
    """[mark, reference, hypothesis] of each column of the alignment, in the units of the score."""
    ref, hyp = (units(" ".join(row[key].split()), score) for key in ("ref", "hyp"))
    if not ref:
        return [["I", "", word] for word in hyp.split()]
    if ref == hyp:
        return [["", word, word] for word in ref.split()]
    return [list(pair) for pair in align(ref, hyp)]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    shown = {key: row[key] for key in ("id", "errors")}
    for key in ("speaker", "duration", "words"):
        if isinstance(row.get(key), str | int | float):
            shown[key] = row[key]
    return shown


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0
