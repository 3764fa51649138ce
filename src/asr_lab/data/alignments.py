"""Words with times as files: CTM (NIST), TextGrid (Praat), JSON."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

SHORTEST_S = 0.0005  # what would be shorter in a TextGrid, which has no intervals without length, is left out of it


class Timed(NamedTuple):
    """A word or a label, in seconds from the beginning of its utterance."""

    text: str
    start: float
    end: float
    score: float  # geometric mean of the label's probability over its frames, in [0, 1]


class AlignedWord(NamedTuple):
    word: Timed
    labels: list[Timed]


class Alignment(NamedTuple):
    """One utterance."""

    id: str
    duration: float  # seconds
    channel: int  # from 1
    words: list[AlignedWord]
    labels: list[Timed]  # all of them, those between words too


def ctm(alignments: Iterable[Alignment]) -> Iterator[str]:
    """Lines `id channel start duration word confidence`, as of the NIST scoring toolkit's CTM format.

    White space in an id, which the format cannot hold, is written as `_`.
    """
    for a in alignments:
        name = "_".join(a.id.split())
        for word, _ in a.words:
            length = word.end - word.start
            yield f"{name} {a.channel} {word.start:.3f} {length:.3f} {word.text} {word.score:.3f}\n"


def json_row(a: Alignment) -> dict[str, Any]:
    """`id`, `duration`, and `words` with `word`, `start`, `end`, `score` and their `labels`."""
    return {
        "id": a.id,
        "duration": a.duration,
        "words": [
            {"word": word.text, **_place(word), "labels": [{"label": x.text, **_place(x)} for x in labels]}
            for word, labels in a.words
        ],
    }


def _place(x: Timed) -> dict[str, float]:
    return {"start": round(x.start, 3), "end": round(x.end, 3), "score": round(x.score, 4)}


def textgrid(a: Alignment) -> str:
    """Praat's long text format: interval tiers `words` and `labels` from 0 to the duration, gaps as empty intervals."""
    tiers = {"words": [word for word, _ in a.words], "labels": a.labels}
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {a.duration:g}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, items) in enumerate(tiers.items(), 1):
        intervals = list(_covering(items, a.duration))
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {a.duration:g}", f"        intervals: size = {len(intervals)}"]
        for i, (start, end, text) in enumerate(intervals, 1):
            lines += [f"        intervals [{i}]:", f"            xmin = {start:g}", f"            xmax = {end:g}"]
            lines.append('            text = "{}"'.format(text.replace('"', '""')))
    return "\n".join(lines) + "\n"


def _covering(items: list[Timed], duration: float) -> Iterator[tuple[float, float, str]]:
    """(start, end, text) without gaps and overlaps from 0 to `duration`."""
    at = 0.0
    for x in items:
        start, end = max(round(x.start, 3), at), min(round(x.end, 3), duration)
        if end - start < SHORTEST_S:
            continue
        if start - at < SHORTEST_S:
            start = at
        else:
            yield at, start, ""
        if duration - end < SHORTEST_S:
            end = duration
        yield start, end, x.text
        at = end
    if at < duration or not items:
        yield at, duration, ""
