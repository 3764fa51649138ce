"""Which words (or characters) went wrong: the alignment behind S, D and I, for one utterance and summed over many."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import jiwer

_MARK = {"equal": "", "substitute": "S", "delete": "D", "insert": "I"}


class Pair(NamedTuple):
    """One column of an alignment."""

    mark: str  # "" equal, "S" substituted, "D" deleted, "I" inserted
    ref: str  # "" for an insertion
    hyp: str  # "" for a deletion


def units(text: str, score: str) -> str:
    """What `score` counts, as words: the text itself for wer, its characters without spaces for cer."""
    return text if score == "wer" else " ".join("".join(text.split()))


def align(ref: str, hyp: str) -> list[Pair]:
    """Words of `ref` and `hyp` side by side along a cheapest edit path (Levenshtein; computed by jiwer)."""
    out = jiwer.process_words([ref], [hyp])
    r, h = out.references[0], out.hypotheses[0]
    pairs = []
    for chunk in out.alignments[0]:
        rs = r[chunk.ref_start_idx : chunk.ref_end_idx]
        hs = h[chunk.hyp_start_idx : chunk.hyp_end_idx]
        n = max(len(rs), len(hs))
        rs, hs = rs + [""] * (n - len(rs)), hs + [""] * (n - len(hs))
        pairs += [Pair(_MARK[chunk.type], a, b) for a, b in zip(rs, hs, strict=True)]
    return pairs


def columns(pairs: Iterable[Pair]) -> str:
    """The alignment as three lines of plain text, as sclite prints it; `*` fills a gap."""
    rows = [("REF:", "HYP:", "EVAL:")]
    for mark, ref, hyp in pairs:
        width = max(len(ref), len(hyp))
        rows.append((ref or "*" * width, hyp or "*" * width, mark))
    widths = [max(map(len, row)) for row in rows]
    return "\n".join(
        " ".join(row[i].ljust(width) for row, width in zip(rows, widths, strict=True)).rstrip() for i in range(3)
    )


def confusions(texts: Iterable[tuple[str, str]], top: int = 10) -> list[tuple[Pair, int]]:
    """The most frequent errors over (reference, hypothesis) texts with their counts, ties in alphabetical order."""
    counts = Counter(pair for ref, hyp in texts for pair in align(ref, hyp) if pair.mark)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top]
