"""One file of a run at a time: what it holds, checked, or what is wrong with it in one line that names the file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr_lab.files import parse_yaml, read_jsonl

RESULT = "result.json"
HYPS = "hyps.test.jsonl"
CONFIG = "config.yaml"
_ABSENT = object()


class Scores(NamedTuple):
    """Per-utterance counts of one cell on the test set, sorted by id: the same row is the same utterance everywhere."""

    ids: tuple[str, ...]
    refs: tuple[str, ...]
    hyps: tuple[str, ...]
    edits: NDArray[np.int64]  # (N, 3) substitutions, deletions, insertions
    words: NDArray[np.int64]  # (N,) reference words
    char_errors: NDArray[np.int64] | None  # (N,), None in an older layout
    chars: NDArray[np.int64] | None
    speakers: tuple[str, ...] | None  # None unless every utterance names its speaker

    @property
    def errors(self) -> NDArray[np.int64]:
        """(N,) word edits: S + D + I."""
        return self.edits.sum(1)

    def counts(self, score: str) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """(edits (N,), reference units (N,)) in words for wer, in characters for cer; None where there are none."""
        if score == "wer":
            return self.errors, self.words
        return None if self.char_errors is None or self.chars is None else (self.char_errors, self.chars)

    def unlike(self, other: "Scores") -> str:
        """Why the two are not of one test set; "" where they have the same utterances, references and words."""
        if self.ids != other.ids:
            only = sorted({*self.ids} ^ {*other.ids})
            shared = len({*self.ids} & {*other.ids})
            return f"{len(self.ids)} and {len(other.ids)} utterances, {shared} of them in both ('{only[0]}' is not)"
        pairs = zip(self.ids, self.refs, other.refs, strict=True)
        if changed := [pair for pair in pairs if pair[1].split() != pair[2].split()]:
            utterance, mine, theirs = changed[0]
            return f'{len(changed)} references differ, as that of \'{utterance}\' ("{mine[:60]}" and "{theirs[:60]}")'
        same = (self.words == other.words).all()
        return "" if same else "the same references were counted as different numbers of words"


def read_object(path: Path) -> tuple[dict[str, Any], list[str]]:
    """A JSON object and no damage, or nothing and one line that names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return {}, [f"{path.name}: cannot be read ({_cause(error, path)})"]
    return (value, []) if isinstance(value, dict) else ({}, [f"{path.name}: not a JSON object"])


def read_config(path: Path) -> dict[str, Any]:
    """A run's configuration, nested; nothing where it cannot be read: older runs and torn files have no say."""
    import yaml

    try:
        config = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def values_of(config: Mapping[str, Any], keys: set[str]) -> dict[str, str]:
    """Values of a configuration by dotted keys, those that it has."""
    return {key: as_text(value) for key in sorted(keys) if (value := _at(config, key.split("."))) is not _ABSENT}


def _at(config: Any, parts: list[str]) -> Any:
    for part in parts:
        config = config.get(part, _ABSENT) if isinstance(config, dict) else _ABSENT
    return config


def _read_rows(path: Path) -> tuple[list[dict], str]:
    """Rows of a JSON-lines file, and what is wrong with it ("" when nothing is)."""
    try:
        rows = read_jsonl(path)
        lines = sum(1 for line in path.read_text(encoding="utf-8").split("\n") if line.strip())
    except FileNotFoundError:
        return [], "missing"
    except (OSError, ValueError, RecursionError) as error:
        return [], f"cannot be read ({_cause(error, path)})"
    objects = [row for row in rows if isinstance(row, dict)]
    if len(objects) < len(rows):
        return objects, "holds lines that are not objects"
    return objects, "torn in the last line" if len(rows) < lines else ""


def hypotheses_of(folder: Path) -> dict[str, Path]:
    """A run's files of hypotheses by split: its own, or what `asr-lab evaluate` wrote for other splits."""
    files = {p.name.split(".")[-2]: p for p in sorted((folder / "evaluate").glob("best.*.jsonl"))}
    return files | {p.name.split(".")[1]: p for p in folder.glob("hyps.*.jsonl")}


def read_scores(path: Path, damage: list[str]) -> Scores | None:
    """Counts per utterance; None when any line is unusable, for a part of a test set is another test set."""
    scores, problem = scored(path)
    if problem:
        damage.append(f"{path.name}: {problem}; not used: the rates are those of {RESULT}, without an interval")
    return scores


def scored(path: Path) -> tuple[Scores | None, str]:
    """Counts per utterance, or None and what is wrong with the file."""
    rows, problem = _read_rows(path)
    ids = tuple(sorted(str(row.get("id")) for row in rows))
    counts, chars = np.zeros((0, 4), np.int64), None
    try:
        rows.sort(key=lambda row: str(row["id"]))
        counts = np.array([[_count(row[k]) for k in ("sub", "del", "ins", "words")] for row in rows], np.int64)
        if all("chars" in row and "char_errors" in row for row in rows):
            chars = np.array([[_count(row[k]) for k in ("char_errors", "chars")] for row in rows], np.int64).T
    except KeyError as error:
        problem = problem or f"a line has no {error}"
    except ValueError as error:
        problem = problem or str(error)
    if not rows or len(set(ids)) < len(ids):
        problem = problem or ("the same id twice" if rows else "empty")
    if problem:
        return None, problem
    named = all(isinstance(row.get("speaker"), str | int) for row in rows)
    found = Scores(
        ids=ids,
        refs=tuple(str(row.get("ref") or "") for row in rows),
        hyps=tuple(str(row.get("hyp") or "") for row in rows),
        edits=counts[:, :3],
        words=counts[:, 3],
        char_errors=None if chars is None else chars[0],
        chars=None if chars is None else chars[1],
        speakers=tuple(str(row["speaker"]) for row in rows) if named else None,
    )
    return found, ""


def read_curve(path: Path, damage: list[str]) -> list[dict[str, float]]:
    rows, problem = _read_rows(path)
    if problem:
        damage.append(f"{path.name}: {problem}")
    return [as_numbers(row) for row in rows]


def _cause(error: Exception, path: Path) -> str:
    """The reason without the path: a page may be shown where nobody should learn whose disk it came from."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error).replace(f"{path}:", "line ")


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**31 or value % 1:
        raise ValueError(f"{value!r} is not a count")
    return int(value)


def as_object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def as_numbers(value: Any) -> dict[str, float]:
    """The entries of an object that are numbers; everything else is not for a table."""
    pairs = as_object(value).items()
    return {
        k: float(v)
        for k, v in pairs
        if isinstance(v, float) or (isinstance(v, int) and not isinstance(v, bool) and abs(v) < 2**63)
    }
