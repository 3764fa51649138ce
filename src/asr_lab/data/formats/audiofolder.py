"""The AudioFolder layout of Hugging Face: folders of audio, each with a metadata.csv or metadata.jsonl."""

from collections.abc import Iterator

from asr_lab.data.formats import Entry, Source, Target
from asr_lab.data.formats._reading import fields, known_split, objects, utterance
from asr_lab.data.formats._sound import each_content, file_keys
from asr_lab.data.formats._writing import by_split, new_folder, write_bytes
from asr_lab.data.formats.table import rows
from asr_lab.data.manifest import Problem, Utterance
from asr_lab.errors import DataError
from asr_lab.files import write_jsonl

METADATA = ("metadata.csv", "metadata.jsonl")


def read(source: Source) -> Iterator[Entry | Problem]:
    """Rows of every metadata file below a folder. A folder called train, dev, test or the like is a split.

    Raises:
        DataError: there is no metadata file, or it has no column for audio or text.
    """
    found = sorted(p for p in source.path.rglob("metadata.*") if p.name in METADATA)
    if not found:
        raise DataError(f"{source.path}: no {' or '.join(METADATA)} in it; name the folder that has one")
    for metadata in found:
        inside = source._replace(path=metadata)
        for item in rows(inside) if metadata.suffix == ".csv" else _json_rows(inside):
            if isinstance(item, Problem):
                yield item
                continue
            where, values = item
            try:
                u = utterance(values, inside, metadata.parent)
            except DataError as error:
                yield Problem("unreadable line", where, str(error))
                continue
            folders = (metadata.parent.relative_to(source.path) / str(values["audio"])).parts[:-1]
            yield Entry(where, u if u.split is not None else u._replace(split=known_split(folders)))


def write(utterances: list[Utterance], target: Target) -> None:
    """SPLIT/metadata.jsonl and SPLIT/KEY.EXTENSION; segments become files of their own."""
    with new_folder(target.path) as folder:
        for split, members in by_split(utterances).items():
            home = folder / (split or "")
            home.mkdir(exist_ok=True)
            lines = []
            for u, key, sound in zip(members, file_keys(members), each_content(members), strict=True):
                name = f"{key}.{sound.extension}"
                write_bytes(home / name, sound.content)
                line = {"file_name": name, "id": u.id, "text": u.text, "duration": sound.seconds}
                line |= {"speaker": u.speaker, "sample_rate": u.sample_rate, "split": u.split}
                lines.append(line)  # nulls too: `datasets` wants the same columns in every line
            write_jsonl(home / "metadata.jsonl", lines)


def _json_rows(source: Source) -> Iterator[tuple[str, dict] | Problem]:
    for item in objects(source.path):
        if isinstance(item, Problem):
            yield item
            continue
        where, row = item
        try:
            yield where, {field: row[name] for field, name in fields(row, source.columns).items()}
        except DataError as error:
            yield Problem("unreadable line", where, str(error))
