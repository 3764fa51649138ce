"""What was recognised, as plain text, JSON lines, SubRip (.srt) or WebVTT (.vtt)."""

import html
import json
import math
import unicodedata
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

# A line of subtitles holds so many columns and stands so long: common rules of television.
MAX_COLUMNS = 42
MAX_S, MIN_S = 7.0, 1.0


class TimedWord(NamedTuple):
    """A word and when it was said, in seconds of the recording."""

    text: str
    start: float
    end: float


class Passage(NamedTuple):
    """What was recognised in one segment."""

    start: float  # seconds of the recording
    end: float
    text: str
    words: list[TimedWord] | None  # None: nobody knows when they were said
    score: float  # log-probability under the search's own score
    joint: str = " "  # what stands between words; nothing in scripts without spaces


class Cue(NamedTuple):
    """One line of subtitles."""

    start: int  # milliseconds
    end: int
    text: str


def cues(p: Passage) -> list[Cue]:
    """Lines of at most 42 columns and 7 s (a longer word stands alone), in order, none over another.

    A wide character takes two columns. A line stands until its last word ends, and at least 1 s if the next line or the
    end of the passage leaves the time. Without times, words share the passage by their length.
    """
    rows: list[list[TimedWord]] = []
    for word in _spread(p) if p.words is None else p.words:
        if rows and _fits([*rows[-1], word], p.joint):
            rows[-1].append(word)
        else:
            rows.append([word])
    found, after = [], 0
    for row, following in pairwise([*rows, None]):
        assert row is not None
        until = p.end if following is None else following[0].start
        end = min(max(row[-1].end, min(row[0].start + MIN_S, until)), row[0].start + MAX_S)
        start = max(_ms(row[0].start), after)
        after = max(_ms(end), start + 1)
        found.append(Cue(start, after, p.joint.join(w.text for w in row)))
    return found


def _fits(row: list[TimedWord], joint: str) -> bool:
    return _columns(joint.join(w.text for w in row)) <= MAX_COLUMNS and row[-1].end - row[0].start <= MAX_S


def _spread(p: Passage) -> list[TimedWord]:
    texts = p.text.split() if p.joint else list(p.text)
    at, words = 0, []
    for text in texts:
        words.append((text, at, at + len(text)))
        at += len(text)
    second = (p.end - p.start) / max(1, at)
    return [TimedWord(text, p.start + a * second, p.start + b * second) for text, a, b in words]


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _ms(seconds: float) -> int:
    return max(0, round(1000 * seconds))


def _clock(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{ms:03}"


class PlainText:
    """A line a passage, those without words left out; `name`, if there is one, before each."""

    suffix, head, joins = ".txt", "", True

    def __init__(self, name: str | None):
        self.name = name

    def __call__(self, p: Passage) -> str:
        return (f"{self.name}\t{p.text}\n" if self.name else f"{p.text}\n") if p.text else ""


class JsonLines:
    """An object a passage: `file` (where a name is given), `start`, `end`, `text`, `score` and `words`.

    `words` is null where no times are known; a score that is no number is null.
    """

    suffix, head, joins = ".jsonl", "", True

    def __init__(self, name: str | None):
        self.name = name

    def __call__(self, p: Passage) -> str:
        words = p.words and [{"word": w.text, "start": round(w.start, 3), "end": round(w.end, 3)} for w in p.words]
        row: dict[str, Any] = {"file": self.name} if self.name else {}
        row |= {"start": round(p.start, 3), "end": round(p.end, 3), "text": p.text}
        row |= {"score": round(p.score, 4) if math.isfinite(p.score) else None, "words": words}
        return json.dumps(row, ensure_ascii=False) + "\n"


class SubRip:
    """Numbered cues with a comma before the milliseconds."""

    suffix, head, joins = ".srt", "", False
    point: ClassVar[str] = ","

    def __init__(self, name: str | None):
        self.n_cues = 0

    def __call__(self, p: Passage) -> str:
        return "".join(self._cue(c) for c in cues(p))

    def _cue(self, c: Cue) -> str:
        self.n_cues += 1
        return f"{self.n_cues}\n{_clock(c.start, self.point)} --> {_clock(c.end, self.point)}\n{self._text(c.text)}\n\n"

    def _text(self, text: str) -> str:
        return text


class WebVtt(SubRip):
    """The same with a heading, a point before the milliseconds, and `&`, `<`, `>` escaped (W3C, WebVTT 1)."""

    suffix, head = ".vtt", "WEBVTT\n\n"
    point = "."

    def _text(self, text: str) -> str:
        return html.escape(text, quote=False)


# `joins`: whether several files may come one after the other in one stream.
FORMATS = {"text": PlainText, "json": JsonLines, "srt": SubRip, "vtt": WebVtt}
