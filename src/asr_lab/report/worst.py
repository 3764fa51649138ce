"""Where the best cell errs: its worst utterances with aligned words, and their recordings where they are wanted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from asr_lab.errors import AsrLabError, DataError
from asr_lab.report.collect import Cell
from asr_lab.report.configurations import Configuration
from asr_lab.report.words import Pair, align, columns, confusions, units

WORST = 10
CONFUSIONS = 12


@dataclass(frozen=True)
class Example:
    """One utterance."""

    id: str
    speaker: str  # "" where none is known
    edits: dict[str, int]  # S, D and I
    length: int  # words or characters of the reference
    pairs: list[Pair]
    clip: str | None = None  # data URI of its recording
    played_s: float = 0.0  # of the clip, which may end before the recording
    silent: str = ""  # why there is no clip, where one was wanted

    @property
    def columns(self) -> str:
        return columns(self.pairs)


def worst(cell: Cell | None, score: str, n: int = WORST) -> list[Example]:
    """The utterances that cost the cell most edits, the shorter first among equals."""
    counts = cell.scores.counts(score) if cell and cell.scores else None
    if cell is None or cell.scores is None or counts is None:
        return []
    s, (errors, lengths) = cell.scores, counts
    order = sorted(range(len(s.ids)), key=lambda i: (-errors[i], lengths[i], s.ids[i]))[:n]
    found = []
    for i in (i for i in order if errors[i]):
        pairs = align(units(s.refs[i], score), units(s.hyps[i], score))
        edits = s.edits[i] if score == "wer" else [sum(p.mark == mark for p in pairs) for mark in "SDI"]
        kinds = dict(zip("SDI", map(int, edits), strict=True))
        found.append(Example(s.ids[i], s.speakers[i] if s.speakers else "", kinds, int(lengths[i]), pairs))
    return found


def most_frequent(row: Configuration | None, score: str) -> list[tuple[Pair, int]]:
    """Errors of a configuration over all its seeds, with their counts."""
    cells = [c.scores for c in row.done if c.scores] if row else []
    wrong = ((r, h) for s in cells for r, h in zip(s.refs, s.hyps, strict=True) if r != h)
    return confusions(((units(r, score), units(h, score)) for r, h in wrong), CONFUSIONS)


def with_recordings(examples: Sequence[Example], config: Mapping[str, Any], n: int) -> list[Example]:
    """The first `n` with their recordings, found by the corpus of the run's configuration.

    Raises:
        DataError: the corpus is not here.
    """
    from asr_lab.report.clips import CLIPS_BYTES

    known, channel = _utterances(config)
    room = CLIPS_BYTES * 3 // 4 // max(1, n)  # base64 makes four bytes of three
    return [_heard(e, known.get(e.id), channel, room) if i < n else e for i, e in enumerate(examples)]


def _heard(example: Example, utterance: Any, channel: int | str, room: int) -> Example:
    from asr_lab.report.clips import clip

    if utterance is None:
        return replace(example, silent="the corpus no longer knows it")
    uri, seconds = clip(utterance, channel, room)
    return replace(example, clip=uri, played_s=seconds, silent="" if uri else "its recording cannot be read")


def _utterances(config: Mapping[str, Any]) -> tuple[dict[str, Any], int | str]:
    """(utterances by id, the channel that the corpus reads)"""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    if "data" not in config:
        raise DataError("--audio: the best cell has no readable config.yaml, which names its corpus; leave --audio out")
    try:
        corpus = instantiate(config["data"], _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if not isinstance(cause, AsrLabError):
            raise
        raise DataError(f"--audio: the corpus is not here ({cause}); leave --audio out") from None
    return {u.id: u for utterances in corpus.splits.values() for u in utterances}, corpus.channel
