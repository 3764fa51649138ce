"""Whether runs can be compared at all: were they scored on the same utterances, in the same words?"""

from collections.abc import Sequence
from typing import Any

from asr_lab.errors import RunError
from asr_lab.report.records import as_object, as_text
from asr_lab.report.sides import Member, Side


def check_same_test(sides: Sequence[Side], split: str) -> None:
    """
    Raises:
        RunError: two runs were not scored on the same utterances, references and normaliser.
    """
    (side, first), *others = [(side, m) for side in sides for m in side.members]
    for other_side, other in others:
        who = _who(side, first, other_side, other)
        ours, theirs = (as_object(m.run.config.get("data")).get("normalizer") for m in (first, other))
        if ours != theirs:
            raise RunError(
                f"{who} were scored with different normalisers ({_name(ours)} and {_name(theirs)}), which count "
                "different words; train or evaluate both with the same data/normalizer"
            )
        if reason := first.scores.unlike(other.scores):
            raise RunError(f"{who} were scored on different {split} sets: {reason}")
        marks = [as_object(as_object(m.result.get("data")).get("digest")).get(split) for m in (first, other)]
        if None not in marks and marks[0] != marks[1]:
            raise RunError(
                f"{who} were scored on different {split} sets: digests {marks[0]} and {marks[1]}, though ids and "
                "references are the same; durations or speakers have changed"
            )


def _who(side: Side, member: Member, other_side: Side, other: Member) -> str:
    if side is other_side:
        return f"{member.run.name} and {other.run.name} (both in {side.letter})"
    return f"{side.letter} ({member.run.name}) and {other_side.letter} ({other.run.name})"


def _name(normalizer: Any) -> str:
    """`english, years=false`"""
    if not isinstance(normalizer, dict):
        return "none"
    target = str(normalizer.get("_target_", "")).rpartition(".")[2]
    options = [f"{k}={as_text(v)}" for k, v in normalizer.items() if not k.startswith("_")]
    return ", ".join([target, *options])
