"""One-pass joint decoding: label after label under the CTC layer and the attention decoder (Watanabe et al. 2017)."""

from typing import Any

import torch
from torch import Tensor

from asr_lab.decoding.label_sync import Ranking, Term, label_sync, label_sync_scores
from asr_lab.layers.ctc_prefix_scorer import CtcPrefixScorer
from asr_lab.types import Hypothesis

PLAIN = Ranking(length_norm=0.0, label_bonus=0.0, coverage=0.0, coverage_floor=1.0)


class JointSearch:
    """w log p_ctc(labels) + (1 - w) log p_attention(labels, end) + the language model's share, w = `ctc_weight`.

    A hypothesis that has not ended counts with the probability that CTC gives to all transcripts that begin with it,
    for each next label: no label is left out beforehand. CTC knows how long the audio is, which is why there is no
    length normalisation. There are at most as many labels as encoder frames.
    """

    def __init__(self, decoder: Any, lm: Any, beam: int, ctc_weight: float):
        if beam < 1:
            raise ValueError(f"decoding.beam must be at least 1 (greedy), {beam} came")
        need_both(decoder, ctc_weight)
        self.decoder, self.lm, self.beam, self.ctc_weight = decoder, lm, beam, ctc_weight

    @torch.no_grad()
    def __call__(self, hidden: Tensor, lens: Tensor) -> list[list[Hypothesis]]:
        """The n-best, best first"""
        lens = lens.to(hidden.device)
        return label_sync(self._terms(hidden, lens), lens, lens, self.beam, PLAIN)

    @torch.no_grad()
    def force(self, hidden: Tensor, lens: Tensor, sequences: list[list[int]]) -> list[float]:
        """The search's score of one given label sequence for each utterance"""
        lens = lens.to(hidden.device)
        return label_sync_scores(self._terms(hidden, lens), lens, sequences, PLAIN)

    def _terms(self, hidden: Tensor, lens: Tensor) -> list[Term]:
        ctc = CtcPrefixScorer()
        terms = [
            Term(1 - self.ctc_weight, self.decoder, self.decoder.begin(hidden, lens)),
            Term(self.ctc_weight, ctc, ctc.begin(self.decoder.log_probs(hidden), lens)),
        ]
        if self.lm.in_search:
            terms.append(Term(1.0, self.lm, self.lm.begin(len(lens), hidden.device)))
        return terms


def need_both(decoder: Any, ctc_weight: float) -> None:
    """
    Raises:
        ValueError: the decoder has not both parts, or the weight is no share.
    """
    if not (hasattr(decoder, "log_probs") and hasattr(decoder, "begin")):
        raise ValueError(
            f"this search wants a CTC layer and an attention decoder, {type(decoder).__name__} has not both; choose "
            "decoder=joint"
        )
    if not 0 <= ctc_weight <= 1:
        raise ValueError(f"decoding.ctc_weight is a share in [0, 1], {ctc_weight} came")
