"""Audio inside tar shards (the WebDataset layout): a shard is read from its start to its end, and kept for a while."""

import tarfile
from collections import OrderedDict
from pathlib import Path

from asr_lab.errors import DataError

# Shards that a process keeps open in memory. Batches are ordered so that one shard is used up before the next one.
KEPT = 2
_shards: OrderedDict[Path, dict[str, bytes]] = OrderedDict()


def member_bytes(shard: Path, member: str) -> bytes:
    """The bytes of one member of a tar.

    Raises:
        DataError: the tar is missing, cut or no tar, or has no such member.
    """
    if shard not in _shards:
        _shards[shard] = read_shard(shard)
        while len(_shards) > KEPT:
            _shards.popitem(last=False)
    _shards.move_to_end(shard)
    try:
        return _shards[shard][member]
    except KeyError:
        raise DataError(f"missing file: {shard} has no member {member}; write the shards again") from None


def read_shard(shard: Path) -> dict[str, bytes]:
    """{name: bytes} of the regular files of a tar, read as a stream.

    Raises:
        DataError: missing, cut, or not a tar.
    """
    files = {}
    try:
        with tarfile.open(shard, mode="r|*") as tar:
            for info in tar:
                if info.isfile():
                    content = tar.extractfile(info)
                    assert content is not None
                    files[info.name] = content.read()
    except FileNotFoundError:
        raise DataError(f"missing file: {shard}; check the path or the root that it is relative to") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"truncated file: {shard} is no whole tar ({error}); fetch it again") from None
    return files
