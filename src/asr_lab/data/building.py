"""Folders that are whole or not there: one builder at a time, work beside the target, a rename at the end."""

import contextlib
import glob
import logging
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from asr_lab.errors import DataError, DiskFullError, is_disk_full


@contextlib.contextmanager
def locked(home: Path, advice: str) -> Iterator[None]:
    """One builder of `home` at a time, also among the jobs of a cluster; the kernel lets go when a builder is killed.

    Raises:
        DataError: a file cannot be read or written, here or in what is done under the lock; ends with `advice`.
        DiskFullError: the same for want of space.
    """
    import fcntl  # not on Windows, where the rest of this module can still be imported

    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with open(home.parent / f".{home.name}.lock", "w") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logging.getLogger(__name__).warning("%s: another process is making this corpus; waiting", home)
                fcntl.flock(f, fcntl.LOCK_EX)
            yield
    except OSError as error:
        kind = DiskFullError if is_disk_full(error) else DataError
        raise kind(f"{error.filename or home}: {error.strerror or error}; {advice}") from error


@contextlib.contextmanager
def replacing(home: Path) -> Iterator[Path]:
    """An empty folder that becomes `home` when the block ends well, and is removed when it does not.

    To be used under `locked`: what a killed builder left is removed first.
    """
    for stale in home.parent.glob(f".{glob.escape(home.name)}.building-*"):
        shutil.rmtree(stale, ignore_errors=True)
    building = home.parent / f".{home.name}.building-{secrets.token_hex(4)}"
    try:
        building.mkdir(parents=True)
        yield building
        shutil.rmtree(home, ignore_errors=True)
        building.rename(home)
    finally:
        shutil.rmtree(building, ignore_errors=True)
