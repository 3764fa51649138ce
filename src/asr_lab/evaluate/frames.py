"""Encoder frames of a split, computed once and searched many times, in bounded memory."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from asr_lab.build import Parts
from asr_lab.evaluate import encoded
from asr_lab.files import write_atomic
from asr_lab.types import Batch

MAX_BYTES = 1 << 30  # kept in memory; what is more lies in files


class Frames:
    """(batch, hidden (B,U,D), lens (B,)) of a split, again and again. The batches come without their features.

    What does not fit into `max_bytes` is kept in a hidden folder below `folder`, which goes when this object does.
    """

    @torch.inference_mode()
    def __init__(self, parts: Parts, split: str, folder: Path, max_bytes: int = MAX_BYTES):
        self.device = parts.task.device
        self._kept: list[tuple[Batch, Tensor | Path, Tensor]] = []
        self._folder: tempfile.TemporaryDirectory | None = None
        n_bytes = 0
        for batch, hidden, lens in encoded(parts, split):
            n_bytes += hidden.nbytes
            place = hidden.cpu() if n_bytes <= max_bytes else self._spill(hidden, folder)
            self._kept.append((batch._replace(feats=batch.feats[:0]), place, lens))

    def __iter__(self) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        for batch, place, lens in self._kept:
            hidden = torch.load(place) if isinstance(place, Path) else place
            yield batch, hidden.to(self.device), lens

    def _spill(self, hidden: Tensor, folder: Path) -> Path:
        if self._folder is None:
            folder.mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.TemporaryDirectory(prefix=".frames-", dir=folder)
        path = Path(self._folder.name) / f"{len(self._kept)}.pt"
        return write_atomic(path, lambda f: torch.save(hidden.clone(), f))
