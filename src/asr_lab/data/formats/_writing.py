"""Targets that are whole or not there at all, and what cannot be written."""

import contextlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from asr_lab.data.manifest import Utterance
from asr_lab.errors import DataError, DiskFullError, is_disk_full


def refuse_existing(path: Path) -> None:
    """
    Raises:
        DataError: there is a file or a filled folder of that name, which would be lost.
    """
    if path.is_dir() and not any(path.iterdir()):
        return
    if os.path.lexists(path):
        raise DataError(f"{path} is there already; remove it or name another")


def needs_ending(path: Path, *endings: str) -> None:
    """
    Raises:
        DataError: the target's name ends otherwise.
    """
    if not path.name.endswith(endings):
        raise DataError(f"{path} must end in {' or '.join(endings)}; name such a file")


def no_members(utterances: list[Utterance], format: str) -> None:
    """
    Raises:
        DataError: an utterance lies in a tar, which the format has no words for.
    """
    for u in utterances:
        if u.member is not None:
            raise DataError(
                f"{u.id} lies in the tar {u.audio}, which {format} cannot name; export it as webdataset, audiofolder "
                "or huggingface"
            )


def by_split(utterances: list[Utterance]) -> dict[str | None, list[Utterance]]:
    """Utterances by the name of their split, which is fit for a file's name. Where some have none, that is "train".

    Raises:
        DataError: a split's name is not.
    """
    groups: dict[str | None, list[Utterance]] = {}
    rest = "train" if any(u.split is not None for u in utterances) else None
    for u in utterances:
        groups.setdefault(u.split if u.split is not None else rest, []).append(u)
    for name in groups:
        if name is not None and not re.fullmatch(r"\w[\w.-]*", name):
            raise DataError(f"split {name!r} is no name for a file; use letters, digits, '_', '-' and '.'")
    return groups


def row(u: Utterance, folder: Path) -> dict[str, Any]:
    """A line of our manifest in `folder`. The audio's path is relative to it where it lies below, else absolute."""
    path = u.audio.absolute()
    name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
    everything = {"id": u.id, "audio_filepath": name, **u._asdict()}
    del everything["audio"]
    return {key: value for key, value in everything.items() if value is not None}


def recording_names(utterances: list[Utterance]) -> dict[Path, str]:
    """A name without white space for every file: its own, with a number where two files share it."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for u in utterances:
        if u.audio not in names:
            stem = name = re.sub(r"\s", "_", u.audio.stem)
            number = 1
            while name in taken:
                number += 1
                name = f"{stem}-{number}"
            taken.add(name)
            names[u.audio] = name
    return names


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it gets its name when the block ends well and is removed otherwise.

    What a killed process left behind is removed by the next one that writes the same target.

    Raises:
        DataError: the target exists, or cannot be written.
        DiskFullError: there is no room for it.
    """
    path = path.absolute()
    refuse_existing(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in path.parent.glob(f".{path.name}.writing-*"):
            with _lock(stale) as ours:
                if ours:
                    shutil.rmtree(stale, ignore_errors=True)
        folder = path.parent / f".{path.name}.writing-{secrets.token_hex(4)}"
        folder.mkdir()
        try:
            with _lock(folder):
                yield folder
                refuse_existing(path)  # another process may have been quicker
                os.replace(folder, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except Exception as error:
        if is_disk_full(error):
            raise DiskFullError(f"{path}: the disk is full or read-only; nothing was left behind") from error
        if isinstance(error, PermissionError | FileExistsError | NotADirectoryError):
            raise DataError(f"{error.filename or path}: {error.strerror}; name another target") from error
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write through to the disk: a folder that has its name holds no empty files, even after a power cut."""
    with open(path, "wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())


def tracked(items: Iterable, what: str, total: int) -> Iterable:
    """With a progress bar, where somebody is looking."""
    from rich.console import Console
    from rich.progress import track

    return track(items, what, total, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """True while this process holds the folder; the kernel lets go of it when its holder dies."""
    import fcntl  # not on Windows, where other modules can still be imported

    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(handle)
