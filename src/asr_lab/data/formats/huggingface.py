"""Folders of Hugging Face `datasets` (save_to_disk). A folder with metadata.csv or .jsonl is read as an audiofolder."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr_lab.data.formats import Entry, Source, Target, audiofolder
from asr_lab.data.formats._reading import fields, utterance
from asr_lab.data.formats._sound import each_content, file_key, file_keys
from asr_lab.data.formats._writing import by_split, new_folder, write_bytes
from asr_lab.data.manifest import Problem, Utterance
from asr_lab.errors import ConfigError, DataError


def read(source: Source) -> Iterator[Entry | Problem]:
    """Rows of a Dataset or of a DatasetDict, whose keys are splits. Audio that is inside becomes files in
    `source.embedded`.

    Raises:
        DataError: the folder is no data set, or has no column for audio or text.
        ConfigError: the package is missing.
    """
    if not any((source.path / name).exists() for name in ("dataset_dict.json", "state.json")):
        yield from audiofolder.read(source)
        return
    datasets = _package()
    try:
        found = datasets.load_from_disk(str(source.path))
        parts = dict(found) if isinstance(found, datasets.DatasetDict) else {None: found}
    except Exception as error:  # of pyarrow, json and others
        raise DataError(
            f"{source.path}: cannot be loaded ({' '.join(str(error).split())[:200]}); save it again"
        ) from None
    for split, part in parts.items():
        where = str(source.path / split if split else source.path)
        try:
            sounds = [name for name, f in part.features.items() if isinstance(f, datasets.Audio)]
            wanted = {"audio": sounds[0], **source.columns} if sounds else source.columns
            names = fields(part.column_names, wanted, ("audio", "text"))
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        for name in sounds:
            part = part.cast_column(name, datasets.Audio(decode=False))  # noqa: PLW2901
        for number, row in enumerate(part.select_columns(list(set(names.values())))):
            try:
                values = {"split": split, **{field: row[name] for field, name in names.items()}}
                values["split"] = values["split"] or split
                yield Entry(f"{where} row {number}", _utterance(values, f"{split or 'row'}-{number}", source))
            except DataError as error:
                yield Problem("unreadable row", f"{where} row {number}", str(error))


def write(utterances: list[Utterance], target: Target) -> None:
    """A DatasetDict of the splits, or a Dataset where there are none; audio is embedded in a column of type Audio.

    Raises:
        ConfigError: the package is missing.
        DataError: a file cannot be read.
    """
    datasets = _package()
    string = datasets.Value("string")
    # Not yet as Audio: writing that wants torchcodec, for files that are not encoded here.
    features = datasets.Features(
        {
            "audio": {"bytes": datasets.Value("binary"), "path": string},
            **dict.fromkeys(("id", "text", "speaker"), string),
            "duration": datasets.Value("float64"),
            "sample_rate": datasets.Value("int32"),
        }
    )
    with new_folder(target.path) as folder, tempfile.TemporaryDirectory(dir=folder.parent, prefix=".arrow-") as scratch:
        parts = {}
        for split, members in by_split(utterances).items():
            part = datasets.Dataset.from_generator(
                _rows,
                features=features,
                gen_kwargs={"utterances": tuple(members)},
                cache_dir=f"{scratch}/{split}",
                writer_batch_size=100,
            )
            parts[split] = part.cast_column("audio", datasets.Audio())
        (parts[None] if None in parts else datasets.DatasetDict(parts)).save_to_disk(str(folder))


def _rows(utterances: tuple) -> Iterator[dict[str, Any]]:
    for u, key, sound in zip(utterances, file_keys(utterances), each_content(list(utterances)), strict=True):
        yield {
            "audio": {"bytes": sound.content, "path": f"{key}.{sound.extension}"},
            "id": u.id,
            "text": u.text,
            "speaker": u.speaker,
            "duration": sound.seconds,
            "sample_rate": u.sample_rate,
        }


def _utterance(values: dict[str, Any], name: str, source: Source) -> Utterance:
    sound = values["audio"]
    if isinstance(sound, dict) and ("bytes" in sound or "path" in sound):
        content, path = sound.get("bytes"), sound.get("path")
        if values.get("id") is None:
            values["id"] = Path(path).stem if path else name
        if content is not None:
            source.embedded.mkdir(parents=True, exist_ok=True)
            file = source.embedded / f"{file_key(name)}{Path(path or '').suffix or '.wav'}"
            write_bytes(file, content)
            path = str(file.absolute())
        values = {**values, "audio": path}
    elif not isinstance(sound, str):
        raise DataError(
            f"the audio column holds a {type(sound).__name__}; a column of type Audio, or paths, are wanted"
        )
    return utterance(values, source, source.path)


def _package() -> Any:
    try:
        import datasets
    except ImportError:
        raise ConfigError("format huggingface needs the package datasets: pip install 'asr-lab[datasets]'") from None
    datasets.disable_progress_bars()
    return datasets
