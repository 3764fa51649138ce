"""Tar shards in the WebDataset layout: members KEY.flac (wav, ogg, mp3) with KEY.json or KEY.txt beside them.

Ours also have a manifest.jsonl beside the shards, which is what training reads.
"""

import io
import json
import random
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from asr_lab.data.check import split_name
from asr_lab.data.formats import Entry, Source, Target
from asr_lab.data.formats._reading import fields, known_split, utterance
from asr_lab.data.formats._sound import Sound, each_content, file_keys
from asr_lab.data.formats._writing import by_split, new_folder, row
from asr_lab.data.manifest import Problem, Utterance
from asr_lab.data.tars import Shard, open_shard
from asr_lab.errors import DataError
from asr_lab.files import write_atomic, write_jsonl

AUDIO = ("flac", "wav", "ogg", "mp3", "opus")
# Of a json, what concerns the sample as it lies in the tar; not the file that it was once cut from.
JSON_FIELDS = ("id", "text", "duration", "speaker", "split", "sample_rate")


def read(source: Source) -> Iterator[Entry | Problem]:
    """Samples of a tar, or of all tars of a folder. A shard called train-000.tar or the like names a split.

    Raises:
        DataError: there is no tar.
    """
    endings = (".tar", ".tar.gz", ".tgz")
    tars = (
        sorted(p for p in source.path.iterdir() if p.name.endswith(endings)) if source.path.is_dir() else [source.path]
    )
    if not tars:
        raise DataError(f"{source.path}: no .tar in it; name the folder that holds the shards")
    for path in tars:
        try:
            shard = open_shard(path.absolute())
        except DataError as error:
            kind, _, detail = str(error).partition(": ")
            yield Problem(kind, str(path), detail)
            continue
        samples: dict[str, dict[str, str]] = {}
        for member in shard.members:
            key, extension = _key(member)
            samples.setdefault(key, {})[extension.lower()] = member
        for key, members in samples.items():
            if Path(key).name.startswith(("__", "._", ".")) or not Path(key).name:
                continue  # notes of writers and of file systems
            try:
                yield _entry(shard, key, members, source)
            except DataError as error:
                yield Problem("unreadable sample", f"{path}/{key}", str(error))


def write(utterances: list[Utterance], target: Target) -> None:
    """SPLIT-000000.tar, ... and manifest.jsonl. Training utterances lie in a random order, by the target's seed."""
    with new_folder(target.path) as folder:
        lines = []
        for split, of_split in by_split(utterances).items():
            members = of_split
            if split_name(split) in ("train", None):
                members = random.Random(f"shards {target.seed}").sample(members, len(members))
            samples = zip(members, file_keys(members), each_content(members), strict=True)
            for number, first in enumerate(samples):  # `_write_shard` takes more of them
                path = folder / f"{split or 'all'}-{number:06d}.tar"
                lines += _write_shard(path, first, samples, target.shard_bytes)
        write_jsonl(folder / "manifest.jsonl", lines)


def _key(member: str) -> tuple[str, str]:
    """(key, extension) as WebDataset has them: the name ends at its first dot."""
    folder, slash, name = member.rpartition("/")
    key, _, extension = name.partition(".")
    return folder + slash + key, extension


def _entry(shard: Shard, key: str, members: dict[str, str], source: Source) -> Entry:
    sound = next((members[e] for e in AUDIO if e in members), None)
    if sound is None:
        raise DataError(f"no audio ({', '.join(AUDIO)}) beside {', '.join(members.values())}")
    values: dict[str, Any] = {}
    if "json" in members:
        try:
            note = json.loads(shard.read(members["json"]).decode())
        except ValueError:
            note = None
        if not isinstance(note, dict):
            raise DataError(f"{members['json']} is no JSON object; mend it")
        names = fields(note, {k: v for k, v in source.columns.items() if k in JSON_FIELDS})
        values = {field: note[name] for field, name in names.items() if field in JSON_FIELDS}
    if values.get("text") is None and "txt" in members:
        try:
            values["text"] = shard.read(members["txt"]).decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            raise DataError(f"{members['txt']} is not UTF-8") from None
    if values.get("text") is None:
        raise DataError("no text: a .txt, or a .json with the key 'text', is wanted beside the audio")
    if values.get("split") is None:
        values["split"] = known_split(re.split(r"[-_.]", shard.path.name)[:1])
    if values.get("id") is None:  # keys are unique in their shard, not always among all
        values["id"] = f"{shard.path.stem}/{key}"
    values |= {"audio": str(shard.path), "member": sound}
    return Entry(f"{shard.path}/{sound}", utterance(values, source._replace(root=None), shard.path.parent))


def _write_shard(
    path: Path,
    first: tuple[Utterance, str, Sound],
    others: Iterator[tuple[Utterance, str, Sound]],
    limit: int,
) -> list[dict[str, Any]]:
    """Fill a tar until it has `limit` bytes; the manifest's lines of what is in it."""
    lines = []

    def fill(f: BinaryIO) -> None:
        with tarfile.open(fileobj=f, mode="w") as tar:
            sample: tuple[Utterance, str, Sound] | None = first
            while sample:
                u, key, sound = sample
                member = f"{key}.{sound.extension}"
                own = u._replace(duration=sound.seconds, offset=None, channel=None)
                note = row(own._replace(member=None), path.parent)
                del note["audio_filepath"]
                _add(tar, member, sound.content)
                _add(tar, f"{key}.json", json.dumps(note, ensure_ascii=False).encode())
                lines.append(row(own._replace(audio=path, member=member), path.parent))
                sample = next(others, None) if tar.offset < limit else None

    write_atomic(path, fill)
    return lines


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # no times, no owners: the same corpus gives the same bytes
    info.size, info.mode = len(content), 0o644
    tar.addfile(info, io.BytesIO(content))
