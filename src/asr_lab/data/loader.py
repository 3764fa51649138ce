"""A loader whose place in an epoch can be saved, and that knows how long it was waited for."""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from asr_lab.types import Batch


class ResumableLoader(DataLoader):
    """Batches in the sampler's order. Lightning keeps `state_dict` in checkpoints, within an epoch too."""

    def __init__(self, dataset: Dataset, sampler: Sampler, n_workers: int):
        self.n_delivered = 0  # batches of the present epoch
        self.seconds_waited = 0.0  # since this loader was made
        # batch_size=None: the sampler's items are whole batches already, and Lightning calls its set_epoch.
        super().__init__(
            dataset,
            sampler=sampler,
            batch_size=None,
            collate_fn=_as_is,
            num_workers=n_workers,
            persistent_workers=n_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.n_delivered = self.sampler.start  # pyright: ignore[reportAttributeAccessIssue]
        batches = super().__iter__()
        while True:
            since = time.perf_counter()
            batch = next(batches, None)
            self.seconds_waited += time.perf_counter() - since
            if batch is None:
                return
            self.n_delivered += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"n_delivered": self.n_delivered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # A whole epoch delivered: the next one starts at its beginning.
        self.sampler.start = state["n_delivered"] % len(self.sampler)  # pyright: ignore


def _as_is(batch: Any) -> Any:
    return batch
