"""One folder of the feature cache: what is computed from audio without chance, computed once and mapped into memory.

A folder belongs to a (corpus, pre-processing, front-end). Its blocks (see block.py) are complete or not there: a killed
build goes on where it stopped, and what it left is never taken for a whole. The runs and processes of a sweep share it.
"""

import ctypes
import fcntl
import hashlib
import importlib
import inspect
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torchaudio

from asr_lab.data.block import SIZE, Arrays, Block
from asr_lab.data.manifest import Utterance
from asr_lab.data.pipeline import Pipeline
from asr_lab.errors import DataError, DiskFullError, is_disk_full
from asr_lab.files import write_json
from asr_lab.frontend.cmvn import Moments
from asr_lab.paths import cache_dir

log = logging.getLogger(__name__)

# Fewer utterances than this are computed in this process: starting others would take longer.
WORTH_A_POOL = 64
Wanted = dict[float, list[Utterance]]  # speed -> utterances


class Store:
    """One folder of the cache: arrays of one kind for the wanted utterances and speeds."""

    def __init__(self, pipeline: Pipeline, kind: str, identity: dict[str, Any], wanted: Wanted, dtype: str):
        self.pipeline, self.kind = pipeline, kind
        # Audio does not depend on the front-end, nor anything here on what is done when it is read.
        used = ("data", "preprocess") if kind == "audio" else ("data", "preprocess", "frontend")
        identity = {group: identity[group] for group in used}
        text = json.dumps([identity, _code(identity), torchaudio.__version__], sort_keys=True)
        digest = hashlib.sha256(f"{kind} {dtype} {text}".encode()).hexdigest()[:12]
        self.folder = cache_dir() / "features" / f"{pipeline.corpus.name}-{kind}-{digest}"
        self.about = {"corpus": str(pipeline.corpus.manifest), "kind": kind, "dtype": dtype, **identity}
        width = 1 if kind == "audio" else pipeline.frontend.out_dim
        self.blocks: dict[float, list[Block]] = {}
        self._places: dict[float, dict[str, int]] = {}
        for speed, utterances in wanted.items():
            # By id, not by split: another way of carving the same corpus finds the same blocks.
            ordered = sorted(utterances, key=lambda u: u.id)
            cuts = [ordered[i : i + SIZE] for i in range(0, len(ordered), SIZE)]
            self.blocks[speed] = [Block(self.folder, text, cut, speed, width, dtype) for cut in cuts]
            self._places[speed] = {u.id: i for i, u in enumerate(ordered)}

    def has(self, u: Utterance, speed: float) -> bool:
        return u.id in self._places.get(speed, ())

    def find(self, u: Utterance, speed: float) -> tuple[Block, int]:
        """The open block and the row of an utterance; a damaged block is computed again."""
        number, row = divmod(self._places[speed][u.id], SIZE)
        block = self.blocks[speed][number]
        if not block.is_open:
            self._open(block)
        return block, row

    def fill(self, n_workers: int) -> None:
        """Compute the blocks that are missing; waits for another process that does."""
        with suppress(OSError):  # when it was last used; a cache that is read-only does not tell
            os.utime(self.folder / "about.json")
        if not self._missing():
            return
        with self._locked():
            todo = self._missing()
            if not todo:  # another process was faster
                return
            self._announce(todo)
            write_json(self.folder / "about.json", self.about)
            n_utterances = sum(len(b.utterances) for b in todo)
            if n_workers == 1 or len(todo) == 1 or n_utterances < WORTH_A_POOL:
                for block in todo:
                    block.write(self._compute)
            else:
                self._fill_in_parallel(todo, min(n_workers, len(todo)))

    def _fill_in_parallel(self, todo: list[Block], n_workers: int) -> None:
        # Forked: the children have everything imported, and PyTorch is safe in them with a single thread.
        pool = ProcessPoolExecutor(n_workers, multiprocessing.get_context("fork"), _start_worker, (self._compute,))
        try:
            futures = [pool.submit(_write_block, block) for block in todo]
            for future in _progress(as_completed(futures), len(todo), f"{self.kind} of {self.pipeline.corpus.name}"):
                future.result()
        except BrokenProcessPool:
            raise DataError(
                f"{self.folder}: a process that computed {self.kind} died (out of memory?); what is finished is kept: "
                "run again, with cache.n_workers=1 if it goes on"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)

    def _compute(self, u: Utterance, speed: float) -> Arrays:
        if self.kind == "features":
            feats = self.pipeline.features(u, speed)
            moments = Moments.of(feats)
            return Arrays(feats.numpy(), torch.stack([moments.total, moments.squares]).numpy())
        samples = self.pipeline.audio(u, speed)[:, None]
        if self.blocks[speed][0].dtype == "int16":
            samples = (samples * 32768).round().clamp(-32768, 32767)
        return Arrays(samples.numpy(), torch.zeros(2, 1).numpy())

    def _missing(self) -> list[Block]:
        return [block for blocks in self.blocks.values() for block in blocks if not block.exists()]

    def _announce(self, todo: list[Block]) -> None:
        """Say what will be computed and how large it will be; refuse when there is no room for it."""
        frontend = self.pipeline.frontend
        size = 0
        for block in todo:
            for u in block.utterances:
                n_samples = self.pipeline.n_samples(u, block.speed)
                n_rows = n_samples if self.kind == "audio" else frontend.n_frames(n_samples)
                size += n_rows * block.width * block.dtype.itemsize
        n_utterances = sum(len(b.utterances) for b in todo)
        free = _free_bytes(self.folder)
        log.info("caching %s: %d utterances, %s in %s", self.kind, n_utterances, readable(size), self.folder)
        if size > free:
            raise DiskFullError(
                f"{self.folder}: the feature cache needs {readable(size)}, {readable(free)} are free; free some, set "
                "ASR_LAB_CACHE to another folder, or cache=none"
            )

    def _open(self, block: Block) -> None:
        try:
            block.open()
        except DataError as error:
            log.warning("%s; computing it again", error)
            with self._locked():
                try:
                    block.open()  # another process has mended it
                except DataError:
                    block.write(self._compute)
                    block.open()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open(self.folder / ".lock", "w")  # noqa: SIM115  closed below; opened here so that the error is ours
        except OSError as error:
            full = DiskFullError if is_disk_full(error) else DataError
            raise full(
                f"{self.folder}: the feature cache cannot be written ({error.strerror}); set ASR_LAB_CACHE to another "
                "folder, or cache=none"
            ) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                log.info("waiting for another process that fills %s", self.folder)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def readable(n_bytes: float) -> str:
    """1234567 -> 1.2 MB"""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"


def _free_bytes(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _code(identity: dict[str, Any]) -> str:
    """Digest of the source files that the parts come from: changed code makes a new cache.

    For our own parts it is their whole package, helpers included.
    """
    files = {Path(inspect.getfile(Pipeline))}
    for target in _targets(identity):
        path = Path(inspect.getfile(importlib.import_module(target.rpartition(".")[0])))
        files |= set(path.parent.glob("*.py")) if target.startswith("asr_lab.") else {path}
    return hashlib.sha256(b"".join(sorted(path.read_bytes() for path in files))).hexdigest()


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from _targets(value)


# In the processes that compute

_compute: Callable[[Utterance, float], Arrays]


def _start_worker(compute: Callable[[Utterance, float], Arrays]) -> None:
    global _compute  # noqa: PLW0603  how a pool's initializer hands something over
    _compute = compute
    torch.set_num_threads(1)
    with suppress(OSError, AttributeError):  # Linux: end with the parent, even when that is killed
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _write_block(block: Block) -> None:
    block.write(_compute)


def _progress(items: Iterator[Any], total: int, what: str) -> Iterator[Any]:
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, what, total, console=Console(stderr=True), transient=True)
