"""Perplexity of a corpus of sentences."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class Perplexity(Metric):
    """exp(-log p / n) over all sentences of a split, n the labels (`ppl`) or the words (`ppl_word`).

    The end of a sentence is one more label, and one more word. A model that knows nothing has ppl = V + 1. `loss` is
    -log p in nats per label. The state is summed over processes; who computes also resets.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("nats", "labels", "words"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.nats: Tensor
        self.labels: Tensor
        self.words: Tensor

    def update(self, rows: list[dict[str, Any]]) -> None:
        """Add sentences: -log p in `nats`, and how many `labels` and `words` they have, ends included."""
        self.nats += sum(row["nats"] for row in rows)
        self.labels += sum(row["labels"] for row in rows)
        self.words += sum(row["words"] for row in rows)

    def compute(self) -> dict[str, Tensor]:
        """{"loss": (), "ppl": (), "ppl_word": ()}"""
        per_label, per_word = self.nats / self.labels, self.nats / self.words
        return {"loss": per_label.float(), "ppl": per_label.exp().float(), "ppl_word": per_word.exp().float()}
