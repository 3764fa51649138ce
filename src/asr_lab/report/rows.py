"""Rows of a file of hypotheses: their counts, their rate with its interval, and what the interval draws again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asr_lab.errors import RunError
from asr_lab.files import read_jsonl
from asr_lab.report.configurations import MIN_SPEAKERS
from asr_lab.report.stats import Array

Row = Mapping[str, Any]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """
    Raises:
        RunError: the file is not there, is empty, or its lines are no hypotheses.
    """
    try:
        rows = read_jsonl(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{path}: no hypotheses ({reason}); `asr-lab evaluate` writes them") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("id", "ref", "hyp")):
            raise RunError(f"{path}:{number}: a line has an object with the texts id, ref and hyp")
        if not row["ref"].split():
            raise RunError(f"{path}:{number}: the reference of {row['id']} is empty; no rate exists for it")
    if not rows:
        raise RunError(f"{path}: is empty; `asr-lab evaluate` writes hypotheses")
    return rows


def counts(rows: Sequence[Row], score: str) -> tuple[Array, Array]:
    """(edits (N,), reference units (N,)): words for wer, characters for cer."""
    if score == "wer":
        pairs = [(row["sub"] + row["del"] + row["ins"], row["words"]) for row in rows]
    else:
        pairs = [(row["char_errors"], row["chars"]) for row in rows]
    edits, units = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return edits, units


def blocks(rows: Sequence[Row]) -> list[str] | None:
    """The speaker of each row, if all of them have one and there are enough; None: utterances are drawn one by one."""
    speakers = [row.get("speaker") for row in rows]
    if not all(isinstance(s, str | int) for s in speakers) or len(set(speakers)) < MIN_SPEAKERS:
        return None
    return [str(s) for s in speakers]
