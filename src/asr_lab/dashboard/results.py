"""What one run's result.json says to a table, checked; nothing of it is trusted."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from asr_lab.report.records import as_numbers, as_object, as_text
from asr_lab.run import SCORES

# Columns of the table beside the score, in this order where a run has them.
COLUMNS = (
    "test/wer",
    "test/cer",
    "test/ser",
    "test/loss",
    "val/wer",
    "val/cer",
    "train/clipped",
    "kept",
    "parameters",
    "seconds",
    "audio_seconds_per_second",
    "peak_memory_mb",
    "steps",
    "epochs",
)
KNOWN_SCORES = ("wer", "cer", *SCORES.values())


class Summary(NamedTuple):
    """A result, small enough for a thousand of them."""

    factors: dict[str, str]
    score: str  # one of KNOWN_SCORES
    numbers: dict[str, float]
    finished: str
    reason: str
    damage: str  # "" where all is well


def summary(text: str) -> Summary:
    """Never raises: what cannot be read is said in `damage`."""
    try:
        result = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _damaged(f"result.json: cannot be read ({error})")
    if not isinstance(result, dict):
        return _damaged("result.json: not a JSON object")
    if not isinstance(result.get("status"), str):
        return _damaged("result.json: says no status")
    return Summary(
        factors={str(k): as_text(v) for k, v in as_object(result.get("factors")).items()},
        score=score if (score := result.get("score")) in KNOWN_SCORES else "wer",
        numbers=_numbers(result),
        finished=str(result.get("finished") or ""),
        reason=str(result.get("reason") or ""),
        damage="",
    )


def _damaged(line: str) -> Summary:
    return Summary({}, "wer", {}, "", "", line)


def _numbers(result: Mapping[str, Any]) -> dict[str, float]:
    found = as_numbers(result.get("metrics")) | as_numbers({k: v for k, v in result.items() if k != "seconds"})
    for key, part, name in (("seconds", "seconds", "total"), ("kept", "gradients", "kept")):
        inside = as_numbers(result.get(part))
        found |= {key: inside[name]} if name in inside else {}
    wanted = (*COLUMNS, "test/ppl", "test/gap")
    return {k: float(f"{found[k]:.6g}") for k in wanted if k in found}
