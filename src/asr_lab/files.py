"""Atomic files: a reader sees the old content or the new one, never a half."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from asr_lab.errors import DiskFullError, is_disk_full

# Read once: reading means setting, and two threads that do so at once can leave it at 0.
_UMASK = os.umask(0o077)
os.umask(_UMASK)
_MOST_LEVELS = 5000
TEMPORARY = ".tmp"  # how the name of a file ends that is being written


def remove_temporaries(folder: Path) -> None:
    """What processes left in a folder that were killed while they wrote; nobody else may write there now."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def write_atomic(path: Path, write: Callable[[BinaryIO], Any]) -> Path:
    """Write through a temporary file in the same folder, flush to disk, rename over `path`.

    Raises:
        DiskFullError: no space (or read-only); the temporary file is removed and an older `path` is untouched.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY, delete=False) as f:
            temporary = f.name
            write(f)  # pyright: ignore[reportArgumentType]
            f.flush()
            os.fsync(f.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp makes 0600, which a group on a cluster could not read
        os.replace(temporary, path)
    except BaseException as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        if is_disk_full(error):
            raise DiskFullError(
                f"{path}: cannot write ({getattr(error, 'strerror', None) or error}); free some space, then run again"
            ) from error
        raise
    return path


def write_text(path: Path, text: str) -> Path:
    return write_atomic(path, lambda f: f.write(text.encode()))


def write_json(path: Path, value: Any) -> Path:
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=True) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict]) -> Path:
    return write_atomic(
        path, lambda f: f.writelines((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in rows)
    )


def parse_yaml(text: str) -> Any:
    """A frozen configuration, by the parser in C where there is one, which is several times as fast.

    That one dies of fifty thousand levels and takes the process along. Whatever opens a level without a longer line has
    one of the signs that are counted; what holds so many is for the slow parser, which raises.

    Raises:
        yaml.YAMLError, ValueError, RecursionError
    """
    import yaml

    is_flat = sum(map(text.count, "[{-?")) < _MOST_LEVELS
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader) if is_flat else yaml.SafeLoader)


def read_jsonl(path: Path) -> list[dict]:
    """Rows of a JSON-lines file that may still be written: a torn last line is left out, a broken inner one raises."""
    rows = []
    with open(path, encoding="utf-8") as f:
        lines = f.readlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ValueError(f"{path}:{number}: not a JSON object ({error.msg})") from error
    return rows
