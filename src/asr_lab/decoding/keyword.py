"""Classes of an utterance by their probability."""

from typing import Any

import torch
from torch import Tensor

from asr_lab.types import Hypothesis


class KeywordSearch:
    """All classes, the most probable first; there is nothing to search, so no beam."""

    def __init__(self, decoder: Any):
        self.decoder = decoder

    @torch.no_grad()
    def __call__(self, hidden: Tensor, lens: Tensor) -> list[list[Hypothesis]]:
        scores, classes = self._log_probs(hidden, lens).sort(dim=-1, descending=True, stable=True)
        return [
            [Hypothesis([label], score) for label, score in zip(*row, strict=True)]
            for row in zip(classes.tolist(), scores.tolist(), strict=True)
        ]

    @torch.no_grad()
    def force(self, hidden: Tensor, lens: Tensor, sequences: list[list[int]]) -> list[float]:
        """log p(label); -inf for anything but one label"""
        rows = self._log_probs(hidden, lens).tolist()
        return [row[s[0]] if len(s) == 1 else float("-inf") for row, s in zip(rows, sequences, strict=True)]

    def _log_probs(self, hidden: Tensor, lens: Tensor) -> Tensor:
        return self.decoder.logits(hidden, lens).log_softmax(dim=-1)
