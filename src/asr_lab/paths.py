"""Where things are: the packaged configuration, the user's own, the caches and the corpora. Imports nothing heavy."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _packaged(name: str) -> Path:
    """Inside the package for an installed wheel, at the top of the repository for an editable install."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parents[1] / name


def conf_dir() -> Path:
    """The folder of choices: one folder per part, one YAML per choice."""
    return _packaged("conf")


def experiment_dirs() -> list[Path]:
    """Folders searched for experiments: the user's `./experiments` first, then the packaged ones."""
    dirs = [Path.cwd() / "experiments", _packaged("experiments")]
    unique = {d.resolve(): d for d in dirs if d.is_dir()}
    return list(unique.values())


def user_conf_dir() -> Path | None:
    """`./conf` of the working directory when it is not the packaged one: a place for a user's own choices."""
    own = Path.cwd() / "conf"
    return own if own.is_dir() and own.resolve() != conf_dir().resolve() else None


def cache_dir() -> Path:
    """Root of everything that can be made again (synthetic corpora, validation stamps): `ASR_LAB_CACHE` or XDG."""
    root = os.environ.get("ASR_LAB_CACHE")
    if root:
        return Path(root).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "asr_lab"
