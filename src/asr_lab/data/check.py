"""Everything that can be wrong with a corpus, found before training; each finding names its line or file."""

import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from asr_lab.data import audio
from asr_lab.data.manifest import Problem, Utterance, digest, parse_manifest
from asr_lab.errors import AsrLabError, DataError
from asr_lab.files import write_text
from asr_lab.paths import cache_dir


def manifest_problems(path: Path, utterances: list[Utterance]) -> Iterator[Problem]:
    """Unreadable lines and duplicated ids; good utterances are appended to `utterances`."""
    first_seen: dict[str, int] = {}
    for item in parse_manifest(path):
        if isinstance(item, Problem):
            yield item
            continue
        if item.id in first_seen:
            yield Problem("duplicated id", item.id, "used more than once; give each utterance its own 'id'")
            continue
        first_seen[item.id] = len(utterances)
        utterances.append(item)
    if not utterances:
        yield Problem("empty manifest", Path(path).name, "no readable utterance in it")


def text_problems(
    utterances: Iterable[Utterance], normalize: Callable[[str], str], unknown: Callable[[str], list[str]]
) -> Iterator[Problem]:
    """Empty transcripts, and characters that the tokenizer has no label for."""
    for u in utterances:
        text = normalize(u.text)
        if not text:
            yield Problem("empty text", u.id, "no transcript; write it or remove the line")
            continue
        strange = unknown(text)
        if strange:
            shown = ", ".join(map(repr, strange[:10]))
            yield Problem(
                "characters outside the tokenizer",
                u.id,
                f"{shown} in {text[:60]!r}; normalise the text, or give the tokenizer what it lacks "
                "(tokenizer=char_train, tokenizer.alphabet=..., words of the lexicon)",
            )


def audio_problem(u: Utterance, sample_rate: int | None, decode: bool) -> Problem | None:
    """What is wrong with one file: from its header, or with `decode` from all its samples.

    `sample_rate` is the wanted rate; with None the rate is only held against the manifest's own `sample_rate` key.
    """
    try:
        info = audio.probe(u.audio, u.member)
        if decode:
            audio.read(u.audio, u.member, u.offset, u.duration, audio.MIX if u.channel is None else u.channel)
    except DataError as error:
        kind, _, detail = str(error).partition(": ")
        return Problem(kind, u.id, detail)
    wanted = sample_rate or u.sample_rate
    if wanted and info.sample_rate != wanted:
        detail = (
            f"{u.audio} has {info.sample_rate} Hz, {wanted} wanted; "
            f"set data.sample_rate={info.sample_rate}, or data.resample=true"
        )
        return Problem("wrong sampling rate", u.id, detail)
    lie = audio.duration_lie(u, info)
    return Problem("duration that lies", u.id, lie) if lie else None


def audio_problems(utterances: list[Utterance], sample_rate: int | None, decode: bool) -> Iterator[Problem]:
    """`audio_problem` of every utterance, in order, by a few threads (libsndfile releases the lock)."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for problem in pool.map(lambda u: audio_problem(u, sample_rate, decode), utterances, chunksize=32):
            if problem:
                yield problem


def frame_problem(u: Utterance, n_frames: int, needed: int) -> Problem | None:
    """An utterance with fewer encoder frames than its labels need (repeats counted): it has no alignment."""
    if n_frames >= needed:
        return None
    detail = (
        f"{n_frames} encoder frames for {needed} needed by {u.text[:60]!r} ({u.duration:.2f} s); correct the "
        "transcript, remove the line, subsample less, or set data.min_duration_s"
    )
    return Problem("too few frames", u.id, detail)


def split_problems(utterances: list[Utterance], wanted: Iterable[str]) -> Iterator[Problem]:
    """Splits without utterances; a manifest that names no split at all is carved later and is fine."""
    found = Counter(split_name(u.split) for u in utterances if u.split is not None)
    for name in wanted:
        if found and not found[name]:
            have = ", ".join(f"{k} ({n})" for k, n in sorted(found.items()))
            yield Problem(
                "split without utterances", name, f'the manifest has {have}; add lines with "split": "{name}"'
            )


def split_name(name: str | None) -> str | None:
    """The names that corpora use for the development split are one."""
    return "val" if name in ("dev", "valid", "validation") else name


def raise_first(problems: Iterable[Problem], source: str, hint: str) -> None:
    """One line about the first problem and how many more there are.

    Raises:
        DataError: there is at least one.
    """
    found = list(problems)
    if found:
        more = f" (and {len(found) - 1} more: {hint})" if len(found) > 1 else ""
        raise DataError(f"{source}: {found[0]}{more}")


def checked_once(utterances: list[Utterance], source: str, hint: str, sample_rate: int | None) -> None:
    """Look at every file's header, once for each content of a manifest: a stamp in the cache remembers a clean corpus.

    A file that is damaged later is still caught, by name, when it is read.

    Raises:
        DataError: a file is missing, empty, truncated, not audio, of another rate or of another length.
    """
    paths = zlib.crc32("\n".join(str(u.audio) for u in utterances).encode())
    stamp = cache_dir() / "checked" / f"{digest(utterances)}-{paths:08x}-{sample_rate}"
    if stamp.exists():
        return
    raise_first(audio_problems(utterances, sample_rate, decode=False), source, hint)
    with suppress(OSError, AsrLabError):  # a read-only cache costs a second look next time, nothing else
        write_text(stamp, source + "\n")


def summary(path: Path, utterances: list[Utterance], problems: list[Problem]) -> dict[str, Any]:
    """The answer of `asr-lab data check --json`."""
    splits: dict[str, dict[str, float]] = {}
    for u in utterances:
        s = splits.setdefault(split_name(u.split) or "(none)", {"utterances": 0, "seconds": 0.0})
        s["utterances"] += 1
        s["seconds"] = round(s["seconds"] + u.duration, 3)
    return {
        "manifest": str(path),
        "utterances": len(utterances),
        "hours": round(sum(u.duration for u in utterances) / 3600, 4),
        "speakers": len({u.speaker for u in utterances if u.speaker}),
        "splits": splits,
        "ok": not problems,
        "problems": len(problems),
        "counts": dict(Counter(p.kind for p in problems).most_common()),
        "items": [p._asdict() for p in problems],
    }
