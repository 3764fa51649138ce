"""Manifests: one JSON object per line (the NeMo convention), read with every mistake named by its line.

Required keys: `audio_filepath` (absolute, or relative to the manifest's folder), `duration` (seconds), `text`.
Optional: `id`, `speaker`, `split`, `sample_rate`; `offset` (seconds: the line is a segment of a longer file, and
`duration` is the segment's), `channel` (from 0), `member` (the audio file's name inside a tar that `audio_filepath`
names). Other keys are kept out of the way.
"""

import gc
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from asr_lab.errors import DataError


class Utterance(NamedTuple):
    """One recording with its transcript."""

    id: str
    audio: Path
    duration: float  # seconds
    text: str
    speaker: str | None = None
    split: str | None = None
    sample_rate: int | None = None
    offset: float | None = None  # seconds; None: the whole file
    channel: int | None = None  # from 0; None: as the corpus says
    member: str | None = None  # file inside the tar `audio`; None: `audio` is the file


class Problem(NamedTuple):
    """One thing that is wrong with a manifest or with a file that it names."""

    kind: str  # e.g. "missing file"; the kinds are listed in data/check.py
    where: str  # "manifest.jsonl:12" or the utterance's id
    detail: str  # what came, and what to do

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.detail}"


def parse_manifest(path: Path) -> Iterator[Utterance | Problem]:
    """Every line of `path` in order, as an utterance or as the problem that makes it unreadable."""
    path = Path(path)
    try:
        lines = open(path, encoding="utf-8")  # noqa: SIM115  closed below; opened here so that the error is ours
    except OSError as error:
        raise DataError(f"{path}: cannot read the manifest ({error.strerror}); check the path") from None
    with lines:
        for number in range(1, 2**62):
            where = f"{path.name}:{number}"
            try:
                line = lines.readline()
            except UnicodeDecodeError as error:
                yield Problem("unreadable line", where, f"not UTF-8 ({error.reason}); save the manifest as UTF-8")
                return
            if not line:
                return
            if line.strip():
                yield _parse_line(line, where, path.parent)


def read_manifest(path: Path) -> list[Utterance]:
    """All utterances of a manifest.

    Raises:
        DataError: the file cannot be read, is empty, or has an unreadable line or a duplicated id (line number given).
    """
    utterances: list[Utterance] = []
    seen: set[str] = set()
    for item in _without_collections(parse_manifest(path)):
        if isinstance(item, Problem):
            raise DataError(f"{Path(path).parent / item.where}: {item.kind}: {item.detail}")
        if item.id in seen:
            raise DataError(f"{path}: duplicated id '{item.id}'; give each utterance its own 'id' or audio_filepath")
        seen.add(item.id)
        utterances.append(item)
    if not utterances:
        raise DataError(f"{path}: the manifest has no utterances")
    return utterances


def _without_collections(items: Iterator[Any]) -> Iterator[Any]:
    """A million new objects make the garbage collector look at all of them again and again, for nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield from items
    finally:
        if was_on:
            gc.enable()


def digest(utterances: list[Utterance]) -> str:
    """Identity of a list of utterances: 16 hex digits over ids, transcripts, durations and splits, in order."""
    h = hashlib.sha256()
    for u in utterances:
        part = "" if u.offset is None and u.channel is None else f"\t{u.offset}\t{u.channel}"
        h.update(f"{u.id}\t{u.duration:.4f}\t{u.speaker}\t{u.split}\t{u.text}{part}\n".encode())
    return h.hexdigest()[:16]


def _parse_line(line: str, where: str, folder: Path) -> Utterance | Problem:  # noqa: PLR0911  one return a mistake
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return Problem("unreadable line", where, f"not JSON ({error.msg} at column {error.colno}); mend or remove it")
    if not isinstance(row, dict):
        return Problem("unreadable line", where, f"a JSON object is wanted, a {type(row).__name__} came")
    missing = [key for key in ("audio_filepath", "duration", "text") if key not in row]
    if missing:
        return Problem("unreadable line", where, f"key {', '.join(map(repr, missing))} is missing")
    name, duration, text = row["audio_filepath"], row["duration"], row["text"]
    if not isinstance(name, str) or not name:
        return Problem("unreadable line", where, f"audio_filepath must be a path, {name!r} came")
    if not (_is_number(duration) and 0 < duration < float("inf")):
        return Problem("unreadable line", where, f"duration must be a positive number of seconds, {duration!r} came")
    if not isinstance(text, str):
        return Problem("unreadable line", where, f"text must be a string, {text!r} came")
    rate, offset, channel, member = (row.get(key) for key in ("sample_rate", "offset", "channel", "member"))
    if offset is not None and not (_is_number(offset) and 0 <= offset < float("inf")):
        return Problem("unreadable line", where, f"offset must be a number of seconds from 0, {offset!r} came")
    if channel is not None and (isinstance(channel, bool) or not isinstance(channel, int) or channel < 0):
        return Problem("unreadable line", where, f"channel must be a whole number from 0, {channel!r} came")
    if member is not None and (not isinstance(member, str) or not member):
        return Problem("unreadable line", where, f"member must be the name of a file in the tar, {member!r} came")
    return Utterance(
        id=str(row.get("id") or _default_id(name, offset, channel, member)),
        audio=Path(os.path.join(folder, name)),  # three times quicker than `/`
        duration=float(duration),
        text=text,
        # One string for all lines that say the same.
        speaker=None if row.get("speaker") is None else sys.intern(str(row["speaker"])),
        split=None if row.get("split") is None else sys.intern(str(row["split"])),
        sample_rate=int(rate) if isinstance(rate, int | float) else None,
        offset=offset,
        channel=channel,
        member=member,
    )


def _default_id(name: str, offset: float | None, channel: int | None, member: str | None) -> str:
    """The file's name without its extension, and what tells the segments and channels of one file apart."""
    stem = os.path.splitext(member or name)[0]
    return stem + ("" if offset is None else f"-{offset:g}") + ("" if channel is None else f"-ch{channel}")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
