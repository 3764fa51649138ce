"""Kaldi data folders: wav.scp and text, with utt2spk, segments and utt2dur where there are any.

https://kaldi-asr.org/doc/data_prep.html. Audio is a file a line; pipes are refused, since running what a list says is
no way to read it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from asr_lab.data.formats import SPLIT_NAMES, UNMEASURED, Entry, Source, Target
from asr_lab.data.formats._reading import lines
from asr_lab.data.formats._writing import by_split, new_folder, no_members, recording_names
from asr_lab.data.manifest import Problem, Utterance
from asr_lab.errors import DataError
from asr_lab.files import write_text

UNTIL_THE_END = "-1"  # a segment whose end is negative goes on to the end of its recording


def read(source: Source) -> Iterator[Entry | Problem]:
    """Utterances of a data folder, or of all data folders in a folder, whose names are then splits.

    Raises:
        DataError: a file that must be there is not.
    """
    home = source.path
    folders = [home] if (home / "wav.scp").exists() else sorted(p.parent for p in home.glob("*/wav.scp"))
    if not folders:
        raise DataError(f"{home}: no wav.scp in it or in its folders; name a Kaldi data folder")
    for folder in folders:
        split = folder.name if len(folders) > 1 or folder.name in SPLIT_NAMES else None
        yield from _read_folder(folder, source, split)


def write(utterances: list[Utterance], target: Target) -> None:
    """A data folder for each split, in the order that Kaldi's tools want; without splits, the target is the folder.

    Raises:
        DataError: an id, speaker, path or text that Kaldi's lists cannot hold.
    """
    no_members(utterances, "kaldi")
    with new_folder(target.path) as folder:
        for split, members in by_split(utterances).items():
            home = folder / (split or "")
            home.mkdir(exist_ok=True)
            for name, content in _lists(members).items():
                write_text(home / name, "".join(f"{line}\n" for line in content))


def _read_folder(folder: Path, source: Source, split: str | None) -> Iterator[Entry | Problem]:
    tables: dict[str, dict[str, tuple[str, str]]] = {}
    for name in ("wav.scp", "text", "utt2spk", "segments", "utt2dur"):
        tables[name] = {}
        if name in ("wav.scp", "text") or (folder / name).exists():
            yield from _table(folder / name, tables[name])
    recordings, texts, segments = tables["wav.scp"], tables["text"], tables["segments"]
    audible = segments if (folder / "segments").exists() else recordings
    for key in texts.keys() - audible.keys():
        where = folder / ("segments" if audible is segments else "wav.scp")
        yield Problem("missing file", texts[key][0], f"{key} has no line in {where}; add it or remove this one")
    for key, (where, value) in audible.items():
        try:
            recording, extent = (key, {}) if audible is recordings else _segment(value)
            if recording not in recordings:
                raise DataError(f"recording {recording} has no line in {folder / 'wav.scp'}")
            if key not in texts:
                raise DataError(f"{key} has no line in {folder / 'text'}; add it or remove this one")
            if not texts[key][1].strip():
                yield Problem("empty text", texts[key][0], f"{key} has no transcript; write it or remove the line")
                continue
            speaker = tables["utt2spk"].get(key, ("", key))[1]
            u = Utterance(
                id=key,
                audio=source.audio(_file(*recordings[recording]), folder),
                duration=_seconds(tables["utt2dur"][key][1]) if key in tables["utt2dur"] else UNMEASURED,
                text=texts[key][1],
                speaker=None if speaker == key else speaker,
                split=split,
            )
            yield Entry(where, u._replace(**extent))
        except DataError as error:
            yield Problem("unreadable line", where, str(error))


def _table(path: Path, table: dict[str, tuple[str, str]]) -> Iterator[Problem]:
    """Fill {key: ("file:line", the rest of the line)}; white space at the ends of the rest is not kept."""
    for item in lines(path):
        if isinstance(item, Problem):
            yield item
            continue
        where, line = item
        key, *others = re.split("[ \t]+", line.strip(" \t"), maxsplit=1)
        if key in table:
            yield Problem("duplicated id", where, f"'{key}' is also in {table[key][0]}; give each its own")
        elif not others and path.name != "text":  # an empty transcript is found by who looks at texts
            yield Problem("unreadable line", where, f"nothing follows '{key}'; mend or remove the line")
        else:
            table[key] = where, others[0] if others else ""


def _file(where: str, value: str) -> str:
    if value.endswith("|") or value.startswith("|"):
        raise DataError(f"{where} is a command ({value[:80]}); write its output to a file and name that")
    if re.search(r"\.ark:\d+$", value):
        raise DataError(f"{where} points into an archive ({value}); write each recording to a file and name that")
    return value


def _segment(value: str) -> tuple[str, dict]:
    """(recording, offset, duration and channel) of "recording start end [channel]"."""
    cells = value.split()
    if len(cells) not in (3, 4):
        raise DataError("'utterance recording start end' is wanted, and perhaps a channel")
    extent: dict = {}
    start = _seconds(cells[1], zero=True)
    if cells[2].startswith("-"):
        if start:
            extent["offset"] = start
    else:
        end = _seconds(cells[2])
        if end <= start:
            raise DataError(f"the segment ends at {end:g}, before its start at {start:g}")
        extent |= {"offset": start, "duration": round(end - start, 6)}
    if len(cells) == 4:
        if not cells[3].isdigit():
            raise DataError(f"the channel must be a number from 0, {cells[3]!r} came")
        extent["channel"] = int(cells[3])
    return cells[0], extent


def _seconds(text: str, zero: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 < value < float("inf") or (zero and value == 0)):
        raise DataError(f"a time in seconds is wanted, {text!r} came")
    return value


def _lists(utterances: list[Utterance]) -> dict[str, list[str]]:
    """{file name: lines} of a data folder, sorted by the bytes of the ids."""
    for u in utterances:
        for what, word in (("id", u.id), ("speaker", u.speaker or u.id)):
            if not word or re.search(r"\s", word):
                raise DataError(f"{u.id!r}: {what} {word!r} has white space, which Kaldi's lists cannot hold")
        for what, words in (("text", u.text), ("path", str(u.audio))):
            if re.search(r"[\r\n]", words) or words != words.strip(" \t"):
                raise DataError(f"{u.id}: {what} {words!r} has a line break or outer blanks, which Kaldi cannot hold")
    ordered = sorted(utterances, key=lambda u: u.id.encode())
    lists = {
        "text": [f"{u.id} {u.text}" for u in ordered],
        "utt2spk": [f"{u.id} {u.speaker or u.id}" for u in ordered],
        "utt2dur": [f"{u.id} {u.duration!r}" for u in ordered],
    }
    speakers: dict[str, list[str]] = {}
    for u in ordered:
        speakers.setdefault(u.speaker or u.id, []).append(u.id)
    lists["spk2utt"] = [f"{s} {' '.join(speakers[s])}" for s in sorted(speakers, key=str.encode)]
    paths = [(u.id, u.audio.absolute()) for u in ordered]
    if any(u.offset is not None or u.channel is not None for u in ordered):
        names = recording_names(ordered)
        lists["segments"] = [f"{u.id} {names[u.audio]} {_extent(u)}" for u in ordered]
        paths = sorted(((name, path.absolute()) for path, name in names.items()), key=lambda pair: pair[0].encode())
    lists["wav.scp"] = [f"{name} {path}" for name, path in paths]
    return lists


def _extent(u: Utterance) -> str:
    end = UNTIL_THE_END if u.offset is None else repr(round(u.offset + u.duration, 6))
    return f"{u.offset or 0} {end}" + ("" if u.channel is None else f" {u.channel}")
