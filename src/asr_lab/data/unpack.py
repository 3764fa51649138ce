"""Archives into folders, without trust: no member leaves the folder, none is a link, and their sum has a limit."""

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from asr_lab.data.building import replacing
from asr_lab.data.processes import spread
from asr_lab.data.progress import progress_bar
from asr_lab.errors import DataError, is_disk_full

CHUNK = 1 << 20
_COLLISIONS = (FileExistsError, NotADirectoryError, IsADirectoryError)  # one path as file and as folder
MAX_MEMBERS = 5_000_000
MAX_NAME = 1 << 20  # bytes of a name or of the attributes of one member
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip")
_MAGIC = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
)


class Member(NamedTuple):
    """A file or folder of an archive."""

    name: str
    size: int  # as declared
    kind: str  # "file", "folder", or what it is instead
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path, folder: Path, max_bytes: int, inner: str | None = None, n_workers: int = 1, progress: bool = False
) -> Path:
    """Unpack a tar (plain, gz, bz2, xz) or a zip into `folder`, which appears when all of it is there.

    The kind is told by the content, not by the name. Owners, modes and times are not taken over. Archives inside it
    that the glob `inner` finds are unpacked where they lie, by `n_workers` processes, and removed.

    Raises:
        DataError: no archive, a damaged or cut one, one that unpacks to more than `max_bytes` or `MAX_MEMBERS`, or one
            with a member that is a link or a device, or whose path is absolute or has `..`.
        OSError: the folder cannot be written.
    """
    with replacing(folder) as building:
        with progress_bar(f"unpacking {archive.name}", archive.stat().st_size, progress, in_bytes=True) as show:
            left = max_bytes - extract(archive, building, max_bytes, show)
        packed = sorted(building.glob(inner)) if inner else []
        # Each may have its share of what is left, twice over: they are alike, but not equal.
        limit_of_a_byte = 2 * left / max(1, sum(path.stat().st_size for path in packed))
        with progress_bar(f"unpacking what is in {archive.name}", len(packed), progress and bool(packed)) as show:
            for done, _ in enumerate(spread(partial(_extract_inner, ratio=limit_of_a_byte), packed, n_workers, 1), 1):
                show(done)
        if hasattr(os, "sync"):
            os.sync()  # or a power cut could leave empty files in a folder that counts as whole
    return folder


def extract(archive: Path, folder: Path, max_bytes: int, show: Callable[[int], None] | None = None) -> int:
    """Write what `archive` holds into an existing folder; the bytes that were written. See `unpack`."""
    left, n_members = max_bytes, 0
    try:
        with open(archive, "rb") as raw:
            for member in _members(raw, archive, max_bytes):
                n_members += 1
                if n_members > MAX_MEMBERS or member.size > left:
                    raise _bomb(archive, max_bytes)
                left -= _write(member, folder, archive, left, max_bytes)
                if show:
                    show(raw.tell())
    except _DAMAGE as error:
        raise DataError(f"{archive}: damaged or cut archive ({error}); fetch it again") from None
    except OSError as error:
        if is_disk_full(error) or (error.errno and not isinstance(error, _COLLISIONS)):
            raise
        raise DataError(f"{archive}: damaged archive ({error}); fetch it again") from None
    return max_bytes - left


def _extract_inner(archives: Sequence[Path], ratio: float) -> None:
    for archive in archives:
        extract(archive, archive.parent, round(ratio * archive.stat().st_size))
        archive.unlink()


def stem(name: str) -> str:
    """The name of an archive without `.tar.gz` and the like."""
    suffix = max((s for s in SUFFIXES if name.lower().endswith(s)), key=len, default="")
    return name[: len(name) - len(suffix)]


def _members(raw: IO[bytes], archive: Path, max_bytes: int) -> Iterator[Member]:
    magic = raw.read(8)
    raw.seek(0)
    opener = next((f for start, f in _MAGIC.items() if magic.startswith(start)), None)
    if opener is None and not _is_tar(raw):
        if not zipfile.is_zipfile(raw):
            raise DataError(f"{archive}: not a tar or zip archive; fetch it again")
        yield from _zip_members(raw)
        return
    # Decompressed here and not by tarfile, which takes a stream that ends in the middle of a header for a whole one.
    with opener(raw) if opener else raw as stream:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_ModestInfo) as tar:
            for info in tar:
                kind = "folder" if info.isdir() else "file" if info.isreg() else _tar_kind(info)
                yield Member(info.name, info.size, kind, lambda i=info: tar.extractfile(i))  # type: ignore[misc]
            if opener is None:
                raw.seek(tar.offset)
                if raw.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("no mark of its end")
        rest = 0
        while chunk := stream.read(CHUNK):  # to the end, where the checksum of the compression is
            rest += len(chunk)
            if rest > max_bytes:
                raise _bomb(archive, max_bytes)


class _ModestInfo(tarfile.TarInfo):
    """Refuses long names and attributes that would be read into memory whole, whatever their length."""

    def _proc_member(self, tar: tarfile.TarFile):
        if not (self.isreg() or self.isdir()) and self.size > MAX_NAME:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tar)  # pyright: ignore[reportAttributeAccessIssue]


def _is_tar(raw: IO[bytes]) -> bool:
    try:
        tarfile.open(fileobj=raw, mode="r:", tarinfo=_ModestInfo).close()
    except tarfile.TarError:
        return False
    finally:
        raw.seek(0)
    return True


def _tar_kind(info: tarfile.TarInfo) -> str:
    return "link" if info.issym() or info.islnk() else "device" if info.isdev() else "special file"


def _zip_members(raw: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(raw) as z:
        for info in z.infolist():
            mode = info.external_attr >> 16
            kind = "folder" if info.is_dir() else "link" if stat.S_ISLNK(mode) else "file"
            if info.flag_bits & 1:
                kind = "encrypted file"
            yield Member(info.filename, info.file_size, kind, lambda i=info: z.open(i))


def _write(member: Member, building: Path, archive: Path, left: int, max_bytes: int) -> int:
    """Write one member; the bytes that it took."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        what = "absolute path" if path.is_absolute() else "path with `..`"
        raise DataError(f"{archive}: {what} in it: {member.name!r}; nothing was unpacked; get it from a better place")
    if member.kind not in ("file", "folder"):
        raise DataError(f"{archive}: {member.kind} in it: {member.name!r}; nothing was unpacked; get it elsewhere")
    if not path.parts:  # "./"
        return 0
    try:
        target = building / path
        (target if member.kind == "folder" else target.parent).mkdir(parents=True, exist_ok=True)
        if member.kind == "folder":
            return 0
        written = 0
        with open(target, "wb") as f, member.open() as content:
            while chunk := content.read(CHUNK):
                written += len(chunk)
                if written > left:
                    raise _bomb(archive, max_bytes)
                f.write(chunk)
    except (ValueError, UnicodeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{archive}: a name that cannot be: {member.name!r} ({error}); get it elsewhere") from None
    return written


def _bomb(archive: Path, max_bytes: int) -> DataError:
    return DataError(
        f"{archive}: unpacks to more than {max_bytes / 1e6:.0f} MB or {MAX_MEMBERS} files, which this corpus has not; "
        "nothing was unpacked; get it elsewhere"
    )
