"""From any format to our manifest: read, measured, checked, written when all is well."""

import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import isnan
from pathlib import Path
from typing import NamedTuple

from asr_lab.data import audio, check
from asr_lab.data.formats import Entry, Format, Source, load
from asr_lab.data.formats._writing import new_folder, refuse_existing, row, tracked
from asr_lab.data.manifest import Problem, Utterance
from asr_lab.errors import DataError
from asr_lab.files import write_jsonl

MANIFEST = "manifest.jsonl"
CHUNK = 4096  # utterances that the threads are given at once


class Wanted(NamedTuple):
    """What is to be looked at, and what becomes of what is wrong."""

    sample_rate: int | None  # Hz; None: any, but what a line says must be so
    decode: bool  # whole files instead of headers
    skip_bad: bool  # leave bad utterances out instead of refusing all


class Imported(NamedTuple):
    manifest: Path
    utterances: list[Utterance]
    problems: list[Problem]  # of what was left out


def import_corpus(format: str, sources: list[tuple[Source, str | None]], to: Path, wanted: Wanted) -> Imported:
    """Write the manifest `to` (a .jsonl, or a folder for it) of everything in `sources`, each with its split, if any.

    Raises:
        DataError: something is wrong with the source, and `skip_bad` is not wanted; the target exists.
        ConfigError: there is no such format.
        DiskFullError: no room; nothing is left behind.
    """
    reader = load(format)
    manifest = to if to.suffix in (".jsonl", ".json") else to / MANIFEST
    folder = manifest.absolute().parent
    refuse_existing(manifest)
    for source, _ in sources:
        if not source.path.exists():
            raise DataError(f"{source.path} is not there; check the path")
    audio_folder = folder / f"{manifest.stem}_audio"
    with new_folder(audio_folder) as place:
        utterances, problems = collect(_read(reader, sources, place), wanted)
        if problems and not wanted.skip_bad:
            more = f" (and {len(problems) - 1} more; --skip-bad lists them and leaves them out)"
            raise DataError(f"{problems[0]}{more if len(problems) > 1 else ''}")
        if not utterances:
            raise DataError(f"{sources[0][0].path}: no {'good ' if problems else ''}utterance in it")
    if not any(audio_folder.iterdir()):
        audio_folder.rmdir()
    moved = [
        u._replace(audio=audio_folder / u.audio.relative_to(place)) if u.audio.is_relative_to(place) else u
        for u in utterances
    ]
    try:
        write_jsonl(manifest, (row(u, folder) for u in moved))
    except BaseException:
        shutil.rmtree(audio_folder, ignore_errors=True)
        raise
    return Imported(manifest, moved, problems)


def collect(items: Iterable[Entry | Problem], wanted: Wanted) -> tuple[list[Utterance], list[Problem]]:
    """Good utterances, with measured durations where they had none, and everything that is wrong with the others."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    first: dict[str, str] = {}
    for item in items:
        if isinstance(item, Problem):
            problems.append(item)
            continue
        where, u = item
        if not u.text.strip():
            problems.append(Problem("empty text", where, f"{u.id} has no transcript; write it or remove the line"))
        elif u.id in first:
            problems.append(
                Problem("duplicated id", where, f"'{u.id}' is also that of {first[u.id]}; give each its own")
            )
        else:
            first[u.id] = where
            entries.append(item)
    utterances = []
    for looked in tracked(_looked_at(entries, wanted), "looking at audio", len(entries)):
        (problems if isinstance(looked, Problem) else utterances).append(looked)
    return utterances, problems


def _read(reader: Format, sources: list[tuple[Source, str | None]], place: Path) -> Iterator[Entry | Problem]:
    for number, (source, split) in enumerate(sources):
        for item in reader.read(source._replace(embedded=place / str(number))):
            if isinstance(item, Entry) and split is not None:
                yield item._replace(utterance=item.utterance._replace(split=split))
            else:
                yield item


def _looked_at(entries: list[Entry], wanted: Wanted) -> Iterator[Utterance | Problem]:
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:  # libsndfile releases the lock
        for start in range(0, len(entries), CHUNK):
            yield from pool.map(lambda entry: _look(entry, wanted), entries[start : start + CHUNK])


def _look(entry: Entry, wanted: Wanted) -> Utterance | Problem:
    """The utterance, measured if need be, or what is wrong with its audio."""
    u = entry.utterance
    if isnan(u.duration):
        try:
            info = audio.probe(u.audio, u.member)
        except DataError as error:
            kind, _, detail = str(error).partition(": ")
            return Problem(kind, entry.where, detail)
        seconds = round(info.n_samples / info.sample_rate - (u.offset or 0.0), 6)
        if seconds <= 0:
            return Problem("segment outside the file", entry.where, f"{u.audio} ends before {u.offset:g} s; correct it")
        u = u._replace(duration=seconds)
    problem = check.audio_problem(u, wanted.sample_rate, wanted.decode)
    return problem._replace(where=entry.where) if problem else u
