"""Every utterance's reference and hypothesis side by side, the worst first, as sclite prints them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from asr_lab.report.rows import Row
from asr_lab.report.words import Pair, align, columns, units


class Aligned(NamedTuple):
    """One utterance, aligned in the units of its score."""

    row: Row
    pairs: list[Pair]

    def count(self, *marks: str) -> int:
        """Columns with one of these marks; that of a right one is ""."""
        return sum(p.mark in marks for p in self.pairs)

    @property
    def n_units(self) -> int:
        return sum(p.mark != "I" for p in self.pairs)


def aligned(rows: Sequence[Row], score: str) -> list[Aligned]:
    """Each row with its alignment: of words for wer, of characters for cer."""
    found = []
    for row in rows:
        ref, hyp = (units(" ".join(row[k].split()), score) for k in ("ref", "hyp"))
        pairs = [Pair("", w, w) for w in ref.split()] if ref == hyp else align(ref, hyp)
        found.append(Aligned(row, pairs))
    return found


def worst_first(utterances: Sequence[Aligned]) -> list[Aligned]:
    """Most errors first, the shorter first among equals."""
    return sorted(utterances, key=lambda u: (-u.count("S", "D", "I"), u.n_units, u.row["id"]))


def listing(utterances: Sequence[Aligned]) -> Iterator[str]:
    """One block of text for each utterance, the worst first."""
    for u in worst_first(utterances):
        speaker = f"  speaker {u.row['speaker']}" if u.row.get("speaker") is not None else ""
        scores = "  ".join(f"{name}={u.count(mark)}" for name, mark in (("C", ""), ("S", "S"), ("D", "D"), ("I", "I")))
        yield f"id: {u.row['id']}{speaker}\nScores: {scores}\n{columns(u.pairs)}\n"
