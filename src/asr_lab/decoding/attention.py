"""Beam search over a decoder that predicts label after label (attention, sequence to sequence)."""

import math
from typing import Any

import torch
from torch import Tensor

from asr_lab.decoding.label_sync import Ranking, Term, label_sync, label_sync_scores
from asr_lab.types import Hypothesis


class AttentionSearch:
    """log p(labels, end) + the language model's share, ranked as `Ranking` says; `label_sync` is the search.

    A hypothesis has at most max_extra + max_ratio U labels, U its encoder frames; one that gets there is ended.
    """

    def __init__(
        self,
        decoder: Any,
        lm: Any,
        beam: int,
        length_norm: float,
        label_bonus: float,
        coverage: float,
        coverage_floor: float,
        max_ratio: float,
        max_extra: int,
    ):
        if beam < 1:
            raise ValueError(f"decoding.beam must be at least 1 (greedy), {beam} came")
        if not 0 <= max_ratio < math.inf or max_extra < 0 or max_ratio + max_extra == 0:
            raise ValueError(
                "decoding.max_ratio and decoding.max_extra must not be negative, nor both 0: they say how many labels "
                f"there can be; {max_ratio} and {max_extra} came"
            )
        if coverage and not hasattr(decoder, "attended"):
            raise ValueError("decoding.coverage wants a decoder with attention; set it to 0")
        self.decoder, self.lm, self.beam = decoder, lm, beam
        self.max_ratio, self.max_extra = max_ratio, max_extra
        self.ranking = Ranking(length_norm, label_bonus, coverage, coverage_floor)

    @torch.no_grad()
    def __call__(self, hidden: Tensor, lens: Tensor) -> list[list[Hypothesis]]:
        """The n-best, best first; a label's frame is the one that its attention is highest at."""
        lens = lens.to(hidden.device)
        max_labels = (self.max_ratio * lens).long() + self.max_extra
        return label_sync(self._terms(hidden, lens), lens, max_labels, self.beam, self.ranking)

    @torch.no_grad()
    def force(self, hidden: Tensor, lens: Tensor, sequences: list[list[int]]) -> list[float]:
        """The search's score of one given label sequence for each utterance"""
        lens = lens.to(hidden.device)
        return label_sync_scores(self._terms(hidden, lens), lens, sequences, self.ranking)

    def _terms(self, hidden: Tensor, lens: Tensor) -> list[Term]:
        terms = [Term(1.0, self.decoder, self.decoder.begin(hidden, lens))]
        if self.lm.in_search:
            terms.append(Term(1.0, self.lm, self.lm.begin(len(lens), hidden.device)))
        return terms
