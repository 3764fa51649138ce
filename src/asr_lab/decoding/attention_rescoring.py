"""Two passes: CTC's n-best, put into another order by the attention decoder (Zhang et al. 2020, section 3.3)."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr_lab.decoding.joint import need_both
from asr_lab.layers.ctc_alignments import log_likelihood
from asr_lab.types import Hypothesis


class RescoringSearch:
    """w log p_ctc(labels) + (1 - w) log p_attention(labels, end) + the language model's share, w = `ctc_weight`.

    The candidates are the n-best of `first_pass`, a search over CTC, and greedy's. The attention decoder sees all of
    them at once with their labels given: one pass, whatever their length. A language model in the search takes part in
    the first pass, too.
    """

    def __init__(self, decoder: Any, lm: Any, beam: int, ctc_weight: float, first_pass: Callable[..., Any]):
        need_both(decoder, ctc_weight)
        self.decoder, self.lm, self.beam, self.ctc_weight = decoder, lm, beam, ctc_weight
        given = {"decoder": decoder, "lm": lm}
        given = {k: v for k, v in given.items() if k in inspect.signature(first_pass).parameters}
        self.searches = [first_pass(**given, beam=width) for width in sorted({1, beam})]
        for search in self.searches:
            search.aligns_all = True

    @torch.no_grad()
    def __call__(self, hidden: Tensor, lens: Tensor) -> list[list[Hypothesis]]:
        """The n-best, best first"""
        lens, n_bests = lens.to(hidden.device), [search(hidden, lens) for search in self.searches]
        # A wider beam may have lost greedy's; its frames are the better ones where it has not.
        found = [{tuple(h.labels): h for n_best in of_one for h in n_best} for of_one in zip(*n_bests, strict=True)]
        flat = [(i, h) for i, of_one in enumerate(found) for h in of_one.values()]
        owners = torch.tensor([i for i, _ in flat], device=hidden.device)
        scores = self._scores(hidden, lens, [h.labels for _, h in flat], owners)
        results: list[list[Hypothesis]] = [[] for _ in found]
        for (i, h), score in sorted(zip(flat, scores, strict=True), key=lambda pair: -pair[1]):
            results[i].append(h._replace(score=score))
        return [best[: self.beam] for best in results]

    @torch.no_grad()
    def force(self, hidden: Tensor, lens: Tensor, sequences: list[list[int]]) -> list[float]:
        """The search's score of one given label sequence for each utterance"""
        return self._scores(hidden, lens.to(hidden.device), sequences, torch.arange(len(lens), device=hidden.device))

    def _scores(self, hidden: Tensor, lens: Tensor, sequences: list[list[int]], owners: Tensor) -> list[float]:
        """(B,U,D), (B,), N sequences and the utterances (N,) they are of -> N scores"""
        label_lens = torch.tensor([len(s) for s in sequences], device=hidden.device)
        # The end stands behind each, and keeps an empty batch of labels from being 0 wide.
        sequences = [[*s, 0] for s in sequences]
        labels = pad_sequence([torch.tensor(s, device=hidden.device) for s in sequences], batch_first=True)
        ctc = log_likelihood(self.decoder.log_probs(hidden), lens, labels + 1, label_lens, owners)
        log_probs, valid = self.decoder.posteriors(hidden[owners], lens[owners], labels[:, :-1], label_lens)
        n_end = log_probs.shape[2] - 1
        ends = torch.arange(labels.shape[1], device=labels.device) == label_lens[:, None]
        chosen = log_probs.gather(2, labels.masked_fill(ends, n_end)[:, :, None])[:, :, 0]
        attention = chosen.masked_fill(~valid, 0).sum(dim=1)
        total = self.ctc_weight * ctc + (1 - self.ctc_weight) * attention
        if self.lm.in_search:
            total = total + self.lm.total([s[:-1] for s in sequences], hidden.device)
        return total.tolist()
