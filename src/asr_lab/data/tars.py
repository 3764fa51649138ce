"""Audio inside tar shards (the WebDataset layout).

A shard's table of members is read once; members are then read where they lie. The kernel is told to fetch the whole
shard ahead, so a process that uses up one shard after another reads the disk or the network as a stream. What it holds
is page cache, which is shared by all processes and given back when memory is short, and no memory of its own.
"""

import os
import tarfile
import threading
from collections import OrderedDict
from pathlib import Path

from asr_lab.errors import DataError

# Shards that a process has open: more than the streams of a worker (data/shards.py), fewer than the files it may open.
KEPT = 32
_shards: OrderedDict[Path, "Shard"] = OrderedDict()
_lock = threading.Lock()


class Shard:
    """An open tar and where its members lie; reading from several threads, or after a fork, is safe.

    Raises:
        DataError: missing, cut, compressed or no tar.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.file = open(path, "rb", buffering=0)  # noqa: SIM115  stays open as long as this object lives
            self.members = _members(self.file, path)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self.file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        except FileNotFoundError:
            raise DataError(f"missing file: {path}; check the path or the root that it is relative to") from None
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"truncated file: {path} is no whole tar ({error}); fetch it again") from None

    def read(self, member: str) -> bytes:
        """
        Raises:
            DataError: there is no such member, or the file has become shorter.
        """
        try:
            start, size = self.members[member]
        except KeyError:
            raise DataError(
                f"missing file: {self.path} has no member {member}; correct the line or write the shards again"
            ) from None
        content = b""
        while len(content) < size:  # one call reads 2 GiB at the most
            more = os.pread(self.file.fileno(), size - len(content), start + len(content))
            if not more:
                raise DataError(f"truncated file: {self.path} ends inside {member}; fetch it again")
            content += more
        return content


def open_shard(path: Path) -> Shard:
    """A shard, opened afresh when it is not among the last `KEPT` used ones.

    Raises:
        DataError: as `Shard`.
    """
    with _lock:  # or several threads would read the same table
        shard = _shards.pop(path, None) or Shard(path)
        _shards[path] = shard
        while len(_shards) > KEPT:
            _shards.popitem(last=False)
    return shard


def member_bytes(shard: Path, member: str) -> bytes:
    """The bytes of one member of a tar.

    Raises:
        DataError: the tar is missing, cut or no tar, or has no such member.
    """
    return open_shard(shard).read(member)


def _members(file, path: Path) -> dict[str, tuple[int, int]]:
    """{name: (first byte, size)} of the regular files of a tar, in its order."""
    if file.read(2) == b"\x1f\x8b":
        raise DataError(f"not a tar: {path} is compressed; unpack it with gunzip, so that members can be found in it")
    file.seek(0)
    members: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
            if not info.isreg() or info.issparse():
                continue
            if info.name in members:
                raise DataError(f"duplicated member: {path} has {info.name} twice; write the shard again")
            members[info.name] = (info.offset_data, info.size)
        # A tar ends with empty blocks. One that was cut between two members lacks them, and nothing else shows it.
        if len(os.pread(file.fileno(), tarfile.BLOCKSIZE, tar.offset)) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("the end is missing")
    return members
