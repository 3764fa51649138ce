"""Where a request may look: folders and files inside the outputs folder, whatever links say."""

import os
import stat
from pathlib import Path
from typing import NamedTuple

from asr_lab.errors import RunError


class AbsentError(LookupError):
    """There is nothing of that name, or nothing that may be shown."""


class Stamp(NamedTuple):
    """What tells one content of a file from the next."""

    inode: int
    changed_ns: int
    size: int


class Places:
    """The outputs folder.

    Raises:
        RunError: it is not there.
    """

    def __init__(self, outputs: Path):
        try:
            self.root = Path(outputs).resolve(strict=True)
        except (OSError, RuntimeError):
            raise RunError(f"{outputs}: no such folder; give --outputs, or start a run first") from None
        if not self.root.is_dir():
            raise RunError(f"{outputs}: is a file; --outputs wants the folder where runs are kept")

    def experiments(self) -> list[str]:
        """Folders of the outputs folder that hold a plan or a run."""
        return [name for name in self.folders(self.root) if self._is_experiment(self.root / name)]

    def experiment(self, name: str) -> Path:
        """
        Raises:
            AbsentError: no such folder, or one that leads out of the outputs folder.
        """
        return self._folder(self.root, name)

    def run(self, experiment: str, name: str) -> Path:
        """Raises AbsentError as `experiment`."""
        return self._folder(self.experiment(experiment), name)

    def folders(self, inside: Path) -> list[str]:
        """Names of the folders in `inside` that do not lead out, sorted; hidden ones and those no URL can name are left
        out."""
        try:
            with os.scandir(inside) as entries:
                found = [e.name for e in entries if e.is_dir() and (not e.is_symlink() or self.holds(Path(e.path)))]
        except OSError:
            return []
        return sorted(name for name in found if not name.startswith(".") and _is_text(name))

    def stamp(self, file: Path) -> Stamp | None:
        """Of a regular file; None where there is none, or where a link leads out."""
        try:
            found = os.lstat(file)
            if stat.S_ISLNK(found.st_mode):
                if not self.holds(file):
                    return None
                found = os.stat(file)
        except (OSError, ValueError):
            return None
        return Stamp(found.st_ino, found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else None

    def leads_out(self, path: Path | str) -> bool:
        """Whether a link at `path` leads out; what is no link lies where its folder lies."""
        return os.path.islink(path) and not self.holds(Path(path))

    def holds(self, path: Path) -> bool:
        """Whether `path`, all links followed, lies in the outputs folder."""
        try:
            return path.resolve(strict=True).is_relative_to(self.root)
        except (OSError, RuntimeError, ValueError):
            return False

    def _folder(self, parent: Path, name: str) -> Path:
        usable = name not in ("", ".", "..") and not name.startswith(".") and "/" not in name and "\0" not in name
        path = parent / name
        try:
            if not usable or not path.is_dir() or not self.holds(path):
                raise AbsentError(name)
        except OSError:  # a name that is too long
            raise AbsentError(name) from None
        return path

    def _is_experiment(self, folder: Path) -> bool:
        if (folder / "sweep.json").exists():
            return True
        return any((folder / name / "result.json").exists() for name in self.folders(folder))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
