"""How a run that ends early is put down: its status and the reason."""

from asr_lab.errors import AsrLabError, DiskFullError, ExplodedError, PausedError, RankLostError, is_disk_full
from asr_lab.run import Run


def ending(error: BaseException, run: Run) -> tuple[BaseException, str, str]:
    """(what to raise: the fault that a library's error stands for, or the error itself; status; reason)"""
    error = _known(error, run)
    status = _status(error, run)
    return error, status, run.cancelled_file.read_text().strip() if status == "cancelled" else _reason(error)


def _status(error: BaseException, run: Run) -> str:
    if isinstance(error, ExplodedError):
        return "exploded"
    if isinstance(error, Exception) and not isinstance(error, DiskFullError | PausedError | RankLostError):
        return "failed"
    # Ctrl-C, a signal, a full disk or the death of another rank are nothing of the run's: it goes on another time.
    return "cancelled" if run.cancelled_file.exists() else "preempted"


def _known(error: BaseException, run: Run) -> BaseException:
    """A fault around the run that a library's error stands for, or the error itself"""
    known = None
    if is_disk_full(error) and not isinstance(error, DiskFullError):
        known = DiskFullError(f"{run.folder}: no space left while writing; free some, then run again to go on")
    elif _is_of_ranks(error):
        known = RankLostError(f"another rank has gone: {' '.join(str(error).split())}")
    if known:
        known.__cause__ = error
    return known or error


def _is_of_ranks(error: BaseException) -> bool:
    from torch import distributed

    # Gloo raises plain errors.
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, AsrLabError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
