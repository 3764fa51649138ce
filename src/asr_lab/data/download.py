"""One URL to one file: resumed after a break, verified, and renamed when it is whole."""

import hashlib
import os
import shutil
import ssl
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from asr_lab import __version__
from asr_lab.data.progress import progress_bar
from asr_lab.errors import DataError, DiskFullError

CHUNK = 1 << 20
TIMEOUT_S = 30
# Before each further try; one that got further than all before it starts the count anew.
PAUSES_S = (0.5, 2.0, 8.0)
_NETWORK_ERRORS = (URLError, TimeoutError, ConnectionError, ssl.SSLError, HTTPException)


class Checksum(NamedTuple):
    algorithm: str  # a name of hashlib: md5, sha256
    digest: str  # hex


def download(
    url: str, path: Path, *, size: int | None, checksum: Checksum | None, advice: str, progress: bool = False
) -> Path:
    """Fetch `url` to `path`. What has come is kept in `<path>.part`, from where the next call goes on.

    A file of which neither size nor checksum is known is fetched anew, because nothing would betray a wrong joint.

    Args:
        size: published length in bytes, when it is known.
        advice: how a line about a server that does not help ends.

    Raises:
        DataError: the server cannot be reached, refuses, breaks off again and again, or sends another file than the
            published one (which is removed).
        DiskFullError: less space than the file needs.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    if size is None and checksum is None:
        part.unlink(missing_ok=True)
    with progress_bar(f"fetching {path.name}", size, progress, in_bytes=True) as show:
        _fetch(url, part, size, size is not None or checksum is not None, advice, show)
    found = checksum and digest(part, checksum.algorithm, progress)
    if checksum and found != checksum.digest:
        part.unlink()
        raise DataError(
            f"{url}: wrong file: its {checksum.algorithm} is {found}, {checksum.digest} is published; it was removed; "
            f"run again, or {advice}"
        )
    return part.rename(path)


def digest(path: Path, algorithm: str, progress: bool = False) -> str:
    """Hex digest of a file, read in pieces."""
    h, done = hashlib.new(algorithm), 0
    with open(path, "rb") as f, progress_bar(f"checking {path.name}", path.stat().st_size, progress, True) as show:
        while chunk := f.read(CHUNK):
            h.update(chunk)
            done += len(chunk)
            show(done)
    return h.hexdigest()


def _fetch(url: str, part: Path, size: int | None, resumable: bool, advice: str, show: Callable) -> None:
    furthest, pauses = _length(part), iter(PAUSES_S)
    while True:
        try:
            have, total = _receive(url, part, size, advice, show)
            if total is None or have == total:
                return
            problem = f"broke off after {have} of {total} bytes"
        except HTTPError as error:
            if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{_length(part)}":
                return  # nothing is missing
            if error.code == 416:
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise DataError(f"{url}: the server answers {error.code} ({error.reason}); {advice}") from None
            problem = f"answers {error.code} ({error.reason})"
        except _NETWORK_ERRORS as error:
            problem = f"cannot be reached ({getattr(error, 'reason', None) or error or type(error).__name__})"
        if not resumable:
            part.unlink(missing_ok=True)
        if _length(part) > furthest:
            furthest, pauses = _length(part), iter(PAUSES_S)
        pause = next(pauses, None)
        if pause is None:
            kept = f" ({part.name} is kept: the next call goes on from it)" if _length(part) else ""
            raise DataError(f"{url}: the server {problem}{kept}; {advice}")
        time.sleep(pause)


def _receive(url: str, part: Path, size: int | None, advice: str, show: Callable) -> tuple[int, int | None]:
    """One request: (bytes there are now, bytes that the whole has when somebody says so)."""
    have = _length(part)
    if size is not None and have >= size:
        if have == size:
            return have, size
        part.unlink()
        have = 0
    headers = {"User-Agent": f"asr-lab/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT_S) as response:
        if not (response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")):
            have = 0  # the server knows no ranges and starts from the beginning
        length = response.headers.get("Content-Length")
        total = size if length is None else have + int(length)
        if size is not None and total != size:
            raise DataError(f"{url}: wrong file: {total} bytes are offered, {size} are published; {advice}")
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - have > free:
            raise DiskFullError(f"{part.parent}: {free >> 20} MB are free, {url} needs {total - have >> 20}")
        with open(part, "ab" if have else "wb") as f:
            while chunk := response.read(CHUNK):
                have += len(chunk)
                if size is not None and have > size:
                    raise DataError(f"{url}: wrong file: more than the {size} published bytes come; {advice}")
                f.write(chunk)
                show(have, total)
            f.flush()
            os.fsync(f.fileno())  # once it is renamed, nobody looks again whether it is whole
    return have, total


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
