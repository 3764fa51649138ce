"""A public corpus from its archives: fetched or given, verified, unpacked, looked at; its manifest is written last.

<root>/<store>/unpacked/<archive>/   one folder an archive, there when all of it is; corpora may share them
<root>/<store>/<archive>[.part]      what is being fetched; removed when it has been unpacked
<root>/<manifest>                    the corpus is there when this file is
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from asr_lab.data.building import locked
from asr_lab.data.download import Checksum, digest, download
from asr_lab.data.recordings import Recording, recordings_of, rows
from asr_lab.data.unpack import stem, unpack
from asr_lab.errors import ConfigError, DataError, DiskFullError
from asr_lab.files import write_jsonl

# An archive that was not published with a length is allowed so many times its own, and 100 MB.
MAX_RATIO = 20


class Archive(NamedTuple):
    """One published file.

    Args:
        max_unpacked_mb: what it may unpack to, in MB (10^6 bytes), archives inside it included.
        size: in bytes, when it is known.
        sha256, md5: as published; without either the file cannot be told from another one.
        inner: glob of archives inside it that are unpacked where they lie.
    """

    url: str
    max_unpacked_mb: float
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    inner: str | None = None

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def checksum(self) -> Checksum | None:
        known = {"sha256": self.sha256, "md5": self.md5}
        return next((Checksum(name, value) for name, value in known.items() if value), None)


class Given(NamedTuple):
    """Where a corpus comes from and goes to."""

    name: str  # of conf/data
    root: Path  # folder of corpora
    manifest: str  # relative to root
    sources: tuple[Path, ...] = ()  # archives, or folders with archives or of what they unpack to
    n_workers: int = 1
    progress: bool = False


class Part(NamedTuple):
    """The folder of an unpacked archive."""

    folder: Path
    is_verified: bool  # its checksum was right, or it was there before


def prepare(
    given: Given, store: str, archives: list[dict], recordings: Callable[[list[Path]], list[Recording]]
) -> Path:
    """The manifest of a corpus, which is made first when it is not there.

    With sources nothing is fetched: they, and what earlier calls have unpacked, must have all that is needed.

    Args:
        store: folder of the unpacked archives, under the root.
        archives: the arguments of `Archive` of each.
        recordings: says what is in the folders that the archives were unpacked to.

    Raises:
        DataError: a server or an archive is not what it should be, or the corpus is incomplete.
        DiskFullError: not enough space.
    """
    target, home = given.root / given.manifest, given.root / store
    try:
        published = [Archive(**archive) for archive in archives]
    except TypeError as error:
        raise ConfigError(f"data.prepare.archives: {error}") from None
    if not target.is_file():
        with locked(home, "choose another folder with --to or ASR_LAB_DATA, or free some space"):
            if not target.is_file():  # another process may have made it while this one waited
                _make(given, target, home, published, recordings)
    return target


def _make(given: Given, target: Path, home: Path, published: list[Archive], recordings: Callable) -> None:
    folders, parts = _gather(given, home, published)
    try:
        everywhere = [*folders, *(part.folder for part in parts)]
        manifest = _own_manifest(folders, parts)
        found = recordings_of(manifest) if manifest else recordings(everywhere)
        twice = [name for name, n in Counter(r.id for r in found).items() if n > 1]
        if twice:
            raise DataError(f"{given.name}: {len(twice)} recordings come twice, such as {twice[0]}; give each once")
        lines = rows(found, target.parent, given.root, given.n_workers, given.progress)
    except DataError:
        for part in parts:
            if not part.is_verified:
                shutil.rmtree(part.folder, ignore_errors=True)  # or the next call would take it for the corpus
        raise
    if any(r.render for r in found) and hasattr(os, "sync"):
        os.sync()  # the manifest says that the files are there: after a power cut, too
    write_jsonl(target, lines)


def _own_manifest(folders: list[Path], parts: list[Part]) -> Path | None:
    """The manifest that a given folder has at its top, or an archive in it or one level down."""
    places = [*folders, *(part.folder for part in parts)]
    found = [place / "manifest.jsonl" for place in places] + [
        m for p in parts for m in p.folder.glob("*/manifest.jsonl")
    ]
    return next((path for path in found if path.is_file()), None)


def _gather(given: Given, home: Path, published: list[Archive]) -> tuple[list[Path], list[Part]]:
    """(folders that were given, folders of archives)."""
    known = {archive.name: archive for archive in published}
    folders, parts = [], []
    for source in given.sources:
        path = source.expanduser().absolute()
        if not path.exists():
            raise DataError(f"--from {source}: is not there; give an archive or a folder")
        inside = [path / name for name in known if (path / name).is_file()] if path.is_dir() else [path]
        folders += [] if inside else [path]
        parts += [_unpack_given(file, known.get(file.name), home, given) for file in inside]
    there = {part.folder for part in parts}
    lacking = [archive for archive in published if _part(home, archive.name) not in there]
    for archive in lacking[:]:
        if _part(home, archive.name).is_dir():
            parts.append(Part(_part(home, archive.name), True))
            lacking.remove(archive)
    if not given.sources:
        _check_space(home, sum((a.size or 0) + a.max_unpacked_mb * 1e6 for a in lacking))
        parts += [_fetch(archive, home, given) for archive in lacking]
    return folders, parts


def _fetch(archive: Archive, home: Path, given: Given) -> Part:
    advice = f"or get {archive.name} elsewhere, then `asr-lab data prepare {given.name} --from {archive.name}`"
    file = home / archive.name
    if not file.is_file():
        download(
            archive.url, file, size=archive.size, checksum=archive.checksum, advice=advice, progress=given.progress
        )
    try:
        part = _unpack(file, archive, archive.max_unpacked_mb * 1e6, home, given)
    except DataError:  # without a checksum, an error page of the server can come so far; the next call fetches anew
        file.unlink()
        raise
    file.unlink()
    return part


def _unpack_given(file: Path, archive: Archive | None, home: Path, given: Given) -> Part:
    """An archive of somebody's; held against the published checksum when it has the published name."""
    checksum = archive and archive.checksum
    if archive and checksum:
        if archive.size not in (None, file.stat().st_size):
            raise DataError(f"{file}: wrong file: {file.stat().st_size} bytes, {archive.size} are published")
        found = digest(file, checksum.algorithm, given.progress)
        if found != checksum.digest:
            raise DataError(
                f"{file}: wrong file: its {checksum.algorithm} is {found}, {checksum.digest} is published; "
                "fetch it again, or rename it to use it nevertheless"
            )
    limit = archive.max_unpacked_mb * 1e6 if archive and checksum else MAX_RATIO * file.stat().st_size + 1e8
    return _unpack(file, archive, limit, home, given)


def _unpack(file: Path, archive: Archive | None, limit: float, home: Path, given: Given) -> Part:
    folder = _part(home, file.name)
    if archive and folder.is_dir() and archive.checksum:
        return Part(folder, True)
    _check_space(home, archive.max_unpacked_mb * 1e6 if archive else file.stat().st_size)
    inner = archive.inner if archive else None
    unpack(file, folder, round(limit), inner, given.n_workers, given.progress)
    return Part(folder, bool(archive and archive.checksum))


def _part(home: Path, name: str) -> Path:
    return home / "unpacked" / stem(name)


def _check_space(home: Path, wanted: float) -> None:
    free = shutil.disk_usage(home.parent).free
    if wanted > free:
        raise DiskFullError(
            f"{home.parent}: {free / 1e9:.1f} GB are free, up to {wanted / 1e9:.1f} are needed; free some, or choose "
            "another folder (--to)"
        )
