"""What formats with named fields share: lines, names of fields, values that are held against what they must be."""

import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from asr_lab.data.formats import SPLIT_NAMES, UNMEASURED, Source
from asr_lab.data.manifest import Problem, Utterance
from asr_lab.errors import DataError, nearest

# Our fields, and what others call them; the first name that is there counts.
FIELDS = {
    "audio": (
        "audio_filepath",
        "audio",
        "path",
        "file_name",
        "audio_path",
        "audio_filename",
        "filename",
        "file",
        "wav",
    ),
    "text": ("text", "sentence", "transcription", "transcript"),
    "id": ("id", "utterance_id", "utt_id"),
    "duration": ("duration",),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "split": ("split",),
    "sample_rate": ("sample_rate", "sampling_rate", "orig_sr"),
    "offset": ("offset", "start"),
    "end": ("end",),
    "channel": ("channel", "channel_selector"),
    "member": ("member",),
}
NUMBERS = ("duration", "sample_rate", "offset", "end", "channel")


def lines(path: Path, raw: bool = False) -> Iterator[tuple[str, str] | Problem]:
    """("file:number", line without its end) of every line that is not blank; .gz is unpacked.

    `raw` gives every line, with its end.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as f:
            for number, line in enumerate(f, 1):
                where = f"{path}:{number}"
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    yield Problem("unreadable line", where, f"not UTF-8 ({error.reason}); save the file as UTF-8")
                    continue
                if raw:
                    yield where, text
                elif text.strip():
                    yield where, text.rstrip("\r\n")
    except (OSError, EOFError) as error:
        raise DataError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); check the file"
        ) from None


def objects(path: Path) -> Iterator[tuple[str, dict[str, Any]] | Problem]:
    """("file:number", object) of every line of a JSON-lines file."""
    for item in lines(path):
        if isinstance(item, Problem):
            yield item
            continue
        where, line = item
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = getattr(error, "msg", "nested too deeply")
            yield Problem("unreadable line", where, f"not JSON ({reason}); mend or remove it")
            continue
        if isinstance(row, dict):
            yield where, row
        else:
            yield Problem("unreadable line", where, f"a JSON object is wanted, a {type(row).__name__} came")


def fields(available: Iterable[str], wanted: Mapping[str, str], required: Iterable[str] = ()) -> dict[str, str]:
    """{our field: its name here}: as `wanted` says, otherwise by the names that are usual.

    Raises:
        DataError: a wanted or required one is not there.
    """
    available = list(available)
    found = {}
    for field, usual in FIELDS.items():
        name = wanted.get(field)
        if name is None:
            name = next((n for n in usual if n in available), None)
        elif name and name not in available:
            raise DataError(f"no column '{name}' for {field}{nearest(name, available)}")
        if name:
            found[field] = name
        elif field in required:
            raise DataError(
                f"no column for {field}: there are {', '.join(available)}; --column {field}=NAME says which"
            )
    return found


def utterance(values: Mapping[str, Any], source: Source, folder: Path) -> Utterance:
    """An utterance from the values of our fields; None and a field that is not there are the same.

    Raises:
        DataError: a value is not what it must be.
    """
    v = {k: value for k, value in values.items() if value is not None}
    for field, key in (("audio", "audio_filepath"), ("text", "text")):
        if field not in v:
            raise DataError(f"key '{key}' is missing")
    name, offset, channel, member = v["audio"], v.get("offset"), v.get("channel"), v.get("member")
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"the audio must be one path, {name!r} came")
    _check(v, "offset", lambda x: x >= 0, "a number of seconds from 0")
    _check(v, "end", lambda x: x > v.get("offset", 0), "a number of seconds after the start")
    if "end" in v and "duration" not in v:
        offset = v.get("offset", 0)
        v["duration"] = round(v["end"] - offset, 6)
    _check(v, "duration", lambda x: x > 0, "a positive number of seconds")
    _check(v, "sample_rate", lambda x: x > 0 and x == int(x), "a positive whole number of Hz")
    _check(v, "channel", lambda x: x >= 0 and x == int(x), "a whole number from 0")
    if member is not None and (not isinstance(member, str) or not member):
        raise DataError(f"member must be the name of a file in the tar, {member!r} came")
    return Utterance(
        id=str(v["id"] if v.get("id", "") != "" else default_id(name, offset, channel, member)),
        audio=source.audio(name, folder),
        duration=float(v.get("duration", UNMEASURED)),
        text=_text(v["text"]),
        speaker=str(v["speaker"]) if "speaker" in v else None,
        split=str(v["split"]) if "split" in v else None,
        sample_rate=int(v["sample_rate"]) if "sample_rate" in v else None,
        offset=offset,
        channel=None if channel is None else int(channel),
        member=member,
    )


def default_id(name: str, offset: float | None, channel: int | None, member: str | None) -> str:
    """As in manifests: the file's name without its extension, and what tells segments and channels of it apart."""
    stem = str(Path(member or name).with_suffix(""))
    return stem + ("" if offset is None else f"-{offset:g}") + ("" if channel is None else f"-ch{channel:g}")


def known_split(parts: Iterable[str]) -> str | None:
    """The first of these names that is usual for a split."""
    return next((part for part in parts if part in SPLIT_NAMES), None)


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise DataError(f"text must be a string, {text!r} came")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"text must be Unicode, {text!r} has half a character") from None
    return text


def _check(values: Mapping[str, Any], field: str, good: Any, wanted: str) -> None:
    x = values.get(field)
    if x is None:
        return
    if isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x) or not good(x):
        raise DataError(f"{field} must be {wanted}, {x!r} came")
