"""Finding one's way in an unpacked archive, of which a person may have given the inner or the outer folder."""

from collections.abc import Iterable
from pathlib import Path

from asr_lab.errors import DataError

MAX_DEPTH = 3


def holders(folders: Iterable[Path], marker: str) -> list[Path]:
    """The folders, at most `MAX_DEPTH` levels deep and the shallowest of each tree, that hold a path `marker`."""
    found: list[Path] = []
    level = list(folders)
    for _ in range(MAX_DEPTH + 1):
        found += [folder for folder in level if (folder / marker).exists()]
        level = [sub for folder in level if folder not in found for sub in _subfolders(folder)]
    return found


def holder(folders: list[Path], marker: str, what: str) -> Path:
    """The first of `holders`.

    Raises:
        DataError: there is none; `what` names the corpus.
    """
    found = holders(folders, marker)
    if not found:
        raise DataError(f"{_named(folders)}: no {marker} in it, so it is not {what}; give its archive or folder")
    return found[0]


def named(folders: list[Path], name: str, pattern: str) -> list[Path]:
    """The files that fit `pattern` in folders called `name`, which were given or lie under what was given; sorted."""
    places = [folder for folder in folders if folder.name == name] + [f / name for f in holders(folders, name)]
    return sorted({file for place in places for file in place.glob(pattern)})


def lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        DataError: it is missing or not UTF-8.
    """
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; fetch the corpus again") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}); fetch the corpus again") from None


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _named(folders: list[Path]) -> str:
    return ", ".join(map(str, folders)) or "nothing was given"
