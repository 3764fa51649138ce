"""Decoding as a sweep of its own: every combination on the development split, the best one on the test split, once."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asr_lab.evaluate import check_splits
from asr_lab.evaluate.cell import Cell, Opened, readable
from asr_lab.evaluate.overrides import combinations
from asr_lab.files import write_json
from asr_lab.report.rows import blocks, counts, read_rows
from asr_lab.report.stats import Interval, compare
from asr_lab.run import Run, now

TUNED_ON = "val"


def sweep(
    run: Run, overrides: list[str], splits: list[str], checkpoint: str, done: Callable[[Cell, dict], None]
) -> tuple[Path, dict[str, Any]]:
    """(file, what is in it) of a sweep over the values that `overrides` list. What was scored before is read.

    Every combination is searched on `val` over the same encoder frames. The one with the lowest rate (the first of
    equals) is then searched on `splits`, where the run's own hypotheses are scored beside it.

    Args:
        done: told of each combination with its scores on `val`.

    Raises:
        RunError: no such checkpoint or split.
        ConfigError: an override that does not fit.
    """
    source = Opened(run, checkpoint)
    cells = [Cell.of(source, cell) for cell in combinations(overrides)]
    if any(split not in ("val", "test") for split in splits):
        check_splits(run, source.parts, splits)  # before anything is searched
    scores = []
    for cell in cells:
        scores.append(cell.scores(TUNED_ON))
        done(cell, scores[-1])
    compared = _compared([cell.rows(TUNED_ON) for cell in cells], run.score)
    best = next(i for i, c in enumerate(compared) if c.best)
    answer = {
        "overrides": overrides,
        "score": run.score,
        "checkpoint": source.checkpoint,
        "tuned_on": TUNED_ON,
        "cells": [
            {
                "overrides": cell.overrides,
                "folder": cell.folder.name,
                **{k: s[k] for k in ("wer", "cer", "real_time_factor", "peak_memory_mb")},
                "interval": _interval(c.rate),
                "to_best": _interval(c.delta),
                "tied": c.tied,
            }
            for cell, s, c in zip(cells, scores, compared, strict=True)
        ],
        "chosen": best,
        "splits": {split: _beside(run, cells[best], split) for split in splits},
        "time": now(),
    }
    key = repr((sorted(overrides), splits, checkpoint, source.stamp))
    name = f"{readable(overrides)}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.json"
    return write_json(run.folder / "evaluate" / name, answer), answer


def _beside(run: Run, cell: Cell, split: str) -> dict[str, Any]:
    """The chosen combination on a split, beside what the run itself had there (None: it left no hypotheses)."""
    scores = cell.scores(split)
    rows, own = cell.rows(split), run.hyps_file(split)
    texts = read_rows(own) if own.exists() else []
    same = [r["id"] for r in texts] == [r["id"] for r in rows]
    compared = _compared([rows, texts] if same else [rows], run.score)
    mine, theirs = (_interval(c.rate) for c in (compared if same else compared * 2))
    # `compare` measures from the better of the two; here it is always from the run's own.
    difference = None
    if same:
        sign = -1.0 if compared[0].best else 1.0
        low, high = sorted(sign * x + 0.0 for x in compared[1 if compared[0].best else 0].delta[1:])
        difference = [mine[0] - theirs[0], low, high]
    return {**scores, "interval": mine, "run": theirs if same else None, "difference": difference}


def _compared(groups: list[list[dict[str, Any]]], score: str) -> list[Any]:
    edits = [counts(rows, score)[0] for rows in groups]
    return compare(edits, counts(groups[0], score)[1], blocks=blocks(groups[0]))


def _interval(found: Interval) -> list[float]:
    return [float(x) for x in found]
