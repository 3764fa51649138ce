"""What goes wrong, and where: errors by kind, word, length, speaker, speech rate and frequency in training.

Every rate is [value, low, high]: shares with a 95 % percentile interval of the bootstrap (see stats.py), None where
none can be made. "Words" are characters for a corpus that is scored by CER.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from asr_lab.report.alignment import Aligned
from asr_lab.report.confusion import confusion
from asr_lab.report.rows import blocks as blocks_of
from asr_lab.report.stats import bootstrap, error_rate, interval, sum_blocks

N_RESAMPLES = 2000
N_BINS = 5
MAX_NAMES = 60  # of a confusion matrix
EXAMPLES = 3
MARKS = {"substitutions": "S", "deletions": "D", "insertions": "I"}

Rate = list[float | None]
Blocks = list[str] | None


def analyse(utterances: Sequence[Aligned], score: str, train: Counter[str] | None, top: int = 15) -> dict[str, Any]:
    """All that `asr-lab errors --json` prints of a split.

    Args:
        utterances: rows with id, ref and hyp, and where known speaker and duration (seconds), aligned.
        train: how often each word is in the training transcripts; None: unknown.
        top: so many of the most frequent errors of each kind.
    """
    rows = [u.row for u in utterances]
    blocks = blocks_of(rows)
    n = np.array([u.n_units for u in utterances], float)
    kinds = {name: np.array([u.count(mark) for u in utterances], float) for name, mark in MARKS.items()}
    errors = np.sum(list(kinds.values()), axis=0)
    is_wrong = (errors > 0).astype(float)
    timed = [i for i, row in enumerate(rows) if isinstance(row.get("duration"), int | float) and row["duration"] > 0]
    paces = [len("".join(rows[i]["ref"].split())) / rows[i]["duration"] for i in timed]
    return {
        "unit": "word" if score == "wer" else "character",
        "score": score,
        "utterances": len(rows),
        "words": int(n.sum()),
        "right": int(n.sum() - kinds["substitutions"].sum() - kinds["deletions"].sum()),
        **{name: int(counts.sum()) for name, counts in kinds.items()},
        "resampled": "speakers" if blocks else "utterances",
        "rate": rate(errors, n, blocks),
        "rates": {name: rate(counts, n, blocks) for name, counts in kinds.items()},
        "sentence_error_rate": rate(is_wrong, np.ones(len(rows)), blocks),
        "most_frequent": {name: _confusions(utterances, mark, top) for name, mark in MARKS.items()},
        "by_length": _binned(n, range(len(rows)), errors, n, blocks, lambda x: f"{x:.0f}"),
        "by_speech_rate": _binned(paces, timed, errors, n, blocks, lambda x: f"{x:.1f}"),
        "by_speaker": _by_speaker(rows, errors, n),
        "by_frequency": None if train is None else _by_frequency(utterances, train, blocks),
        "out_of_vocabulary": None if train is None else _oov(utterances, train, blocks),
        "confusion": _confusion(rows, score),
    }


def rate(errors: Any, n: Any, blocks: Blocks) -> Rate:
    """[share, low, high] of errors (N,) over n (N,); blocks (or utterances) that hold nothing of it are left out."""
    errors, n = np.asarray(errors, float), np.asarray(n, float)
    if blocks is not None:
        errors, n = sum_blocks(errors, blocks), sum_blocks(n, blocks)
    there = (n > 0) | (errors > 0)
    errors, n = errors[there], n[there]
    value = float(error_rate(errors, n))
    if n.size < 2:
        return [_number(value), None, None]
    return [_number(x) for x in interval(value, bootstrap(errors, n, N_RESAMPLES)[0])]


def _number(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None


def _confusions(utterances: Iterable[Aligned], mark: str, top: int) -> list[dict[str, Any]]:
    counts: Counter[tuple[str, str]] = Counter()
    seen: dict[tuple[str, str], list[str]] = {}
    for u in utterances:
        for p in u.pairs:
            if p.mark == mark:
                counts[p.ref, p.hyp] += 1
                ids = seen.setdefault((p.ref, p.hyp), [])
                if len(ids) < EXAMPLES and u.row["id"] not in ids:
                    ids.append(u.row["id"])
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top]
    return [{"ref": ref, "hyp": hyp, "count": n, "examples": seen[ref, hyp]} for (ref, hyp), n in most]


def _confusion(rows: Sequence[Any], score: str) -> dict[str, Any] | None:
    """`names` and `counts` of the confusion matrix, where every utterance is one word and names are few."""
    if score != "wer" or any(len(row["ref"].split()) != 1 for row in rows):
        return None
    matrix = confusion(dict(row) for row in rows)
    return {"names": matrix.names, "counts": matrix.counts} if len(matrix.names) <= MAX_NAMES else None


def _binned(
    values: Sequence[float] | Any,
    which: Iterable[int],
    errors: Any,
    n: Any,
    blocks: Blocks,
    show: Callable[[float], str],
) -> list[dict[str, Any]]:
    """Utterances `which` in up to five bins with about as many each, by their `values`."""
    which, values = np.array(list(which), int), np.asarray(values, float)
    if not len(which):
        return []
    # Edges are values that occur, so that equal values are never parted.
    edges = np.unique(np.quantile(values, np.linspace(0, 1, N_BINS + 1)[1:-1], method="higher"))
    bins, found = np.searchsorted(edges, values, side="right"), []
    for b in np.unique(bins):
        chosen = which[bins == b]
        low, high = show(values[bins == b].min()), show(values[bins == b].max())
        found.append({"from": low, "to": high, **_part(chosen, errors, n, blocks)})
    return found


def _part(chosen: Any, errors: Any, n: Any, blocks: Blocks) -> dict[str, Any]:
    some = None if blocks is None else [blocks[i] for i in chosen]
    return {
        "utterances": len(chosen),
        "words": int(n[chosen].sum()),
        "rate": rate(errors[chosen], n[chosen], some),
    }


def _by_speaker(rows: Sequence[Any], errors: Any, n: Any) -> list[dict[str, Any]]:
    """The worst first; each speaker's interval is over the speaker's own utterances."""
    speakers: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if row.get("speaker") is not None:
            speakers.setdefault(str(row["speaker"]), []).append(i)
    found = [{"speaker": s, **_part(np.array(at), errors, n, None)} for s, at in speakers.items()]
    return sorted(found, key=lambda s: (-(s["rate"][0] or 0.0), s["speaker"]))


def _by_frequency(utterances: Sequence[Aligned], train: Counter[str], blocks: Blocks) -> list[dict[str, Any]]:
    """Reference words by how often they are in training: 0, 1, 2 to 9, 10 to 99, ...; of each, the share that was
    substituted or deleted. Insertions belong to no reference word."""
    grades: dict[int, list[list[float]]] = {}
    for i, u in enumerate(utterances):
        for p in u.pairs:
            if p.mark != "I":
                wrong_n = grades.setdefault(_grade(train[p.ref]), [[0.0, 0.0] for _ in utterances])[i]
                wrong_n[0] += bool(p.mark)
                wrong_n[1] += 1
    found = []
    for grade, counts in sorted(grades.items()):
        wrong, n = np.array(counts).T
        low, high = (grade, grade) if grade < 2 else (max(2, 10 ** (grade - 2)), 10 ** (grade - 1) - 1)
        found.append({"from": low, "to": high, "words": int(n.sum()), "rate": rate(wrong, n, blocks)})
    return found


def _grade(count: int) -> int:
    """0: never, 1: once, 2: 2 to 9 times, 3: 10 to 99 times, ..."""
    return min(count, 1) if count < 2 else len(str(count)) + 1


def _oov(utterances: Sequence[Aligned], train: Counter[str], blocks: Blocks) -> dict[str, Any]:
    """Reference words that are in no training transcript: how many there are, and how many of them were found."""
    n, right, others, others_right = (np.zeros(len(utterances)) for _ in range(4))
    missed: Counter[str] = Counter()
    types = set()
    for i, u in enumerate(utterances):
        for p in u.pairs:
            if p.mark == "I":
                continue
            if train[p.ref]:
                others[i] += 1
                others_right[i] += not p.mark
                continue
            n[i] += 1
            right[i] += not p.mark
            types.add(p.ref)
            missed[p.ref] += bool(p.mark)
    most = sorted(((w, c) for w, c in missed.items() if c), key=lambda item: (-item[1], item[0]))
    return {
        "words": int(n.sum()),
        "types": len(types),
        "share": _number(float(error_rate(n, n + others))),
        "recall": rate(right, n, blocks),
        "recall_of_the_others": rate(others_right, others, blocks),
        "missed": [{"word": w, "count": c} for w, c in most[:15]],
    }
