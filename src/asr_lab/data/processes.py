"""Work on many items, spread over processes that end with the one that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from asr_lab.errors import DataError

T = TypeVar("T")
R = TypeVar("R")


def spread(work: Callable[[Sequence[T]], R], items: Sequence[T], n_workers: int, chunk: int) -> Iterator[R]:
    """`work` of each `chunk` items, in order. Fewer chunks than two are done here: a process takes a while to start.

    Processes are spawned, because a copy of one with threads can stand still; so `work` and the items are pickled.

    Raises:
        DataError: a process was killed; and whatever `work` raises.
    """
    chunks = [items[i : i + chunk] for i in range(0, len(items), chunk)]
    n_processes = min(n_workers, len(chunks))
    if n_processes < 2:
        yield from map(work, chunks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(n_processes, mp_context=context, initializer=_end_with_parent)
    try:
        yield from pool.map(work, chunks)
    except BrokenProcessPool:
        raise DataError("a worker process was killed, perhaps for want of memory; try fewer workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


def available() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with_parent() -> None:
    """A pool's worker would wait for ever for a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
