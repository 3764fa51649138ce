"""Errors for people: which key or file, what came, what to do. The command line prints the line and exits 2."""

import errno
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches


class AsrLabError(ValueError):
    """Anything a person can mend: a key, a file, a missing package. Never a bug of ours."""


class ConfigError(AsrLabError):
    """A key or a choice in the configuration is wrong."""


class DataError(AsrLabError):
    """A manifest, an audio file or a transcript is wrong."""


class RunError(AsrLabError):
    """A run's folder or checkpoint is not what was expected."""


class DiskFullError(AsrLabError):
    """A file could not be written; nothing half-written was left behind."""


class RankLostError(AsrLabError):
    """Another process of a distributed run has died; nothing that this one has done."""


class PausedError(AsrLabError):
    """A run was to end here for now."""


class ExplodedError(AsrLabError):
    """Training met too many non-finite gradients to go on."""


def nearest(word: str, options: Iterable[str]) -> str:
    """` (did you mean 'x'?)`-style hint, or the list of options; empty when there are none."""
    known = sorted(options)
    close = get_close_matches(word, known, n=3, cutoff=0.6)
    if close:
        likeness = [SequenceMatcher(None, word, c).ratio() for c in close]
        close = [c for c, r in zip(close, likeness, strict=True) if r > likeness[0] - 0.1]
        return "; did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    return f"; choose from: {', '.join(known)}" if known else ""


def is_disk_full(error: BaseException) -> bool:
    """True for the ways in which a full disk, quota or read-only folder shows itself, also inside PyTorch."""
    for e in (error, error.__cause__, error.__context__):
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            return True
        if isinstance(e, RuntimeError) and ("file write failed" in str(e) or "unexpected pos" in str(e)):
            return True
    return False
