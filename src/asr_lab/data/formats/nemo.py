"""NVIDIA NeMo's manifests: JSON lines with audio_filepath, duration, text, offset. Ours are the same with more keys."""

from collections.abc import Iterator

from asr_lab.data.formats import Entry, Source, Target
from asr_lab.data.formats._reading import fields, objects, utterance
from asr_lab.data.formats._writing import needs_ending, no_members, row
from asr_lab.data.manifest import Problem, Utterance
from asr_lab.errors import DataError
from asr_lab.files import write_jsonl


def read(source: Source) -> Iterator[Entry | Problem]:
    """Lines of a manifest; `shard_id` (audio in NeMo's own tars) and lists of files are refused."""
    for item in objects(source.path):
        if isinstance(item, Problem):
            yield item
            continue
        where, found = item
        try:
            if "shard_id" in found and "member" not in found:
                raise DataError("a line of a tarred manifest (shard_id); import the manifest from before it was tarred")
            names = fields(found, source.columns)
            if "duration" not in names:
                raise DataError("key 'duration' is missing")
            values = {field: found[name] for field, name in names.items()}
            yield Entry(where, utterance(values, source, source.path.parent))
        except DataError as error:
            yield Problem("unreadable line", where, str(error))


def write(utterances: list[Utterance], target: Target) -> None:
    """
    Raises:
        DataError: an utterance lies in a tar, where NeMo would not find it.
    """
    needs_ending(target.path, ".jsonl", ".json")
    no_members(utterances, "nemo")
    folder = target.path.absolute().parent
    write_jsonl(target.path, (row(u, folder) for u in utterances))
