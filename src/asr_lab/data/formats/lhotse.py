"""Lhotse's cuts as JSON lines (.jsonl or .jsonl.gz): MonoCut, and MultiCut that has all channels of its recording.

https://lhotse.readthedocs.io/en/latest/cuts.html. Written and read without Lhotse.
"""

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asr_lab.data import audio
from asr_lab.data.formats import Entry, Source, Target
from asr_lab.data.formats._reading import objects, utterance
from asr_lab.data.formats._writing import needs_ending, no_members, recording_names
from asr_lab.data.manifest import Problem, Utterance
from asr_lab.errors import DataError
from asr_lab.files import write_atomic

SAME_S = 1e-3  # a cut that is its recording but for this is the whole file


def read(source: Source) -> Iterator[Entry | Problem]:
    """A cut with one supervision is an utterance; of a cut with several, each supervision is one.

    Raises:
        DataError: the file cannot be read.
    """
    for item in objects(source.path):
        if isinstance(item, Problem):
            yield item
            continue
        where, cut = item
        try:
            for u in _utterances(cut, source):
                yield Entry(where, u)
        except DataError as error:
            yield Problem("unreadable line", where, str(error))
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
            yield Problem("unreadable line", where, f"no cut as Lhotse writes them ({reason}); write it again")


def write(utterances: list[Utterance], target: Target) -> None:
    """A cut a line; its split is a custom field.

    Raises:
        DataError: an utterance lies in a tar; a file cannot be read.
    """
    needs_ending(target.path, ".jsonl", ".jsonl.gz")
    no_members(utterances, "lhotse")
    names = recording_names(utterances)
    with ThreadPoolExecutor(max_workers=8) as pool:
        infos = dict(zip(names, pool.map(audio.probe, names), strict=True))
    lines = (
        json.dumps(_cut(u, names[u.audio], infos[u.audio]), ensure_ascii=False).encode() + b"\n" for u in utterances
    )

    def write_lines(f: Any) -> None:
        if target.path.suffix != ".gz":
            f.writelines(lines)
            return
        with gzip.GzipFile(fileobj=f, mode="wb", mtime=0, filename="") as packed:
            packed.writelines(lines)

    write_atomic(target.path, write_lines)


def _utterances(cut: dict[str, Any], source: Source) -> Iterator[Utterance]:
    kind = cut.get("type", "MonoCut")
    if "supervisions" not in cut and "sources" in cut:
        raise DataError("a recording, not a cut; name the file of cuts")
    if kind not in ("MonoCut", "MultiCut"):
        raise DataError(f"a {kind}; only MonoCut and MultiCut can be read, save the others' audio first")
    if not cut.get("recording"):
        raise DataError("the cut has no recording (features alone?); its audio is wanted")
    supervisions = cut["supervisions"]
    if not supervisions:
        raise DataError("the cut has no supervision, so no text; remove it")
    for s in supervisions:
        extent = {"offset": cut["start"], "duration": cut["duration"]}
        if len(supervisions) > 1:
            extent = {"offset": round(cut["start"] + s["start"], 6), "duration": s["duration"]}
        yield utterance(
            {
                **_file(cut, extent),
                "id": s["id"] if len(supervisions) > 1 else cut["id"],
                "text": s.get("text"),
                "speaker": s.get("speaker"),
                "split": (cut.get("custom") or {}).get("split"),
            },
            source,
            source.path.parent,
        )


def _file(cut: dict[str, Any], extent: dict[str, float]) -> dict[str, Any]:
    """Our fields of the file that a cut lies in."""
    recording = cut["recording"]
    if recording.get("transforms"):
        raise DataError(
            "the recording has transforms, which Lhotse applies when it reads; save the changed audio first"
        )
    wanted = cut["channel"] if isinstance(cut["channel"], list) else [cut["channel"]]
    everywhere = [c for s in recording["sources"] for c in s["channels"]]
    found = next((s for s in recording["sources"] if set(wanted) <= set(s["channels"])), None)
    if found is None:
        raise DataError(f"channels {wanted} are not together in one of the recording's files")
    if found["type"] != "file":
        raise DataError(f"the recording's source is a {found['type']}, not a file; save the audio first")
    if len(wanted) > 1 and len(wanted) < len(everywhere):
        raise DataError(f"channels {wanted} of {everywhere}: one, or all of them can be read")
    one = len(wanted) == 1 and len(found["channels"]) > 1
    whole = extent["offset"] < SAME_S and abs(extent["duration"] - recording["duration"]) < SAME_S
    return {
        "audio": found["source"],
        "sample_rate": recording["sampling_rate"],
        "duration": extent["duration"],
        "offset": None if whole else extent["offset"],
        "channel": found["channels"].index(wanted[0]) if one else None,
    }


def _cut(u: Utterance, name: str, info: audio.AudioInfo) -> dict[str, Any]:
    seconds = info.n_samples / info.sample_rate
    start = u.offset or 0.0
    duration = seconds if u.offset is None else min(u.duration, seconds - start)
    channels = list(range(info.n_channels))
    if u.channel is not None and u.channel not in channels:
        raise DataError(f"{u.id}: {u.audio} has {info.n_channels} channels, number {u.channel} (from 0) is wanted")
    channel = channels[u.channel or 0] if u.channel is not None or len(channels) == 1 else channels
    supervision = {
        "id": u.id,
        "recording_id": name,
        "start": 0.0,
        "duration": duration,
        "channel": channel,
        "text": u.text,
    }
    cut = {
        "id": u.id,
        "start": start,
        "duration": duration,
        "channel": channel,
        "supervisions": [supervision if u.speaker is None else {**supervision, "speaker": u.speaker}],
        "recording": {
            "id": name,
            "sources": [{"type": "file", "channels": channels, "source": str(u.audio.absolute())}],
            "sampling_rate": info.sample_rate,
            "num_samples": info.n_samples,
            "duration": seconds,
            "channel_ids": channels,
        },
        "type": "MonoCut" if isinstance(channel, int) else "MultiCut",
    }
    return cut if u.split is None else {**cut, "custom": {"split": u.split}}
