"""Searches over frame-wise distributions with a blank (CTC)."""

import math
from typing import Any

import torch
from torch import Tensor

from asr_lab.layers.ctc_alignments import first_frames, log_likelihood, viterbi
from asr_lab.layers.ctc_prefixes import PrefixSearch
from asr_lab.layers.masks import valid_frames
from asr_lab.types import Hypothesis


class CtcSearch:
    """Best path with a beam of 1; prefix beam search above, or where a language model takes part in the search.

    The score of a hypothesis is its log-probability summed over all alignments (of a best path: that of the path), plus
    the language model's. With a `prior_weight` w, log p(k|x) - w log p(k) stands for log p(k|x), with the prior p(k)
    of labels and blank that the decoder saw in training (Manohar et al. 2015). Frames of labels are found for the best
    hypothesis, with `aligns_all` for all of them: that is where somebody will put them into another order.
    """

    def __init__(
        self,
        decoder: Any,
        lm: Any,
        beam: int,
        n_tokens: int,
        min_log_prob: float,
        beam_threshold: float,
        prior_weight: float,
    ):
        check_counts(beam=beam, n_tokens=n_tokens)
        if not beam_threshold > 0:
            raise ValueError(f"beam_threshold must be positive, {beam_threshold} came")
        if prior_weight < 0 or not math.isfinite(prior_weight):
            raise ValueError(f"prior_weight must not be negative, {prior_weight} came")
        if prior_weight and not hasattr(decoder, "log_prior"):
            raise ValueError(f"{type(decoder).__name__} estimates no label prior; set prior_weight=0")
        if math.isnan(min_log_prob) or min_log_prob >= 0:
            raise ValueError(f"min_log_prob is the logarithm of a probability, below 0, {min_log_prob} came")
        self.decoder, self.lm, self.beam, self.prior_weight = decoder, lm, beam, prior_weight
        self.beam_threshold = beam_threshold
        self.aligns_all = lm.rescores  # whether the n-best may get another order
        self.prefixes = PrefixSearch(beam, n_tokens, min_log_prob, lm if lm.in_search else None)

    @torch.no_grad()
    def __call__(self, hidden: Tensor, lens: Tensor) -> list[list[Hypothesis]]:
        scores = self.scores(hidden)
        greedy = best_path(scores, lens)
        if self.beam == 1 and not self.lm.in_search:
            return [[found] for found in greedy]
        n_best = self.prefixes(scores, lens).sequences(self.beam_threshold)
        for found, hypothesis in zip(n_best, greedy, strict=True):
            if hypothesis.labels not in found:
                found.append(hypothesis.labels)
        return scored(n_best, scores, lens, self.lm, self.beam, self.aligns_all)

    @torch.no_grad()
    def force(self, hidden: Tensor, lens: Tensor, sequences: list[list[int]]) -> list[float]:
        """log p(labels), summed over all alignments, and the language model's share"""
        return exact(self.scores(hidden), lens, sequences, list(range(len(sequences))), self.lm)

    def scores(self, hidden: Tensor) -> Tensor:
        """(B,U,D) -> (B,U,V+1) log-probabilities of each frame, less the prior's share"""
        scores = self.decoder.log_probs(hidden)
        return scores - self.prior_weight * self.decoder.log_prior() if self.prior_weight else scores


def check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, {value} came")


def best_path(scores: Tensor, lens: Tensor) -> list[Hypothesis]:
    """(B,U,V+1), (B,) -> the best class of each frame, repeats merged, blanks dropped; the score is that of the path"""
    best, path = scores.max(dim=-1)  # (B, U) both
    valid = valid_frames(lens, path.shape[1])
    starts = torch.ones_like(valid)
    starts[:, 1:] = path[:, 1:] != path[:, :-1]
    keep = (valid & starts & (path != 0)).cpu()
    totals = best.masked_fill(~valid, 0).sum(dim=1).tolist()
    path = path.cpu() - 1
    frames = torch.arange(path.shape[1])
    return [
        Hypothesis(row[k].tolist(), total, frames[k].tolist()) for row, k, total in zip(path, keep, totals, strict=True)
    ]


def exact(scores: Tensor, lens: Tensor, sequences: list[list[int]], rows: list[int], lm: Any) -> list[float]:
    """The score of each sequence of labels for the utterance `rows` says, from (B,U,V+1), (B,)"""
    totals = log_likelihood(scores, lens, *_tensors(sequences, rows, scores.device))
    if lm.in_search:
        totals = totals + lm.total(sequences, scores.device)
    return totals.tolist()


def scored(
    n_best: list[list[list[int]]], scores: Tensor, lens: Tensor, lm: Any, n: int, aligns_all: bool
) -> list[list[Hypothesis]]:
    """The n best of each utterance's label sequences with their exact scores, and with each label's frame in the best
    alignment, of the first or of all; from (B,U,V+1), (B,)"""
    rows = [i for i, found in enumerate(n_best) for _ in found]
    totals = iter(exact(scores, lens, [labels for found in n_best for labels in found], rows, lm))
    ordered = [sorted(((next(totals), labels) for labels in found), key=_score)[:n] for found in n_best]
    n_aligned = n if aligns_all else 1
    rows = [i for i, found in enumerate(ordered) for _ in found[:n_aligned]]
    some = [labels for found in ordered for _, labels in found[:n_aligned]]
    frames = first_frames(viterbi(scores, lens, *_tensors(some, rows, scores.device)))
    return [
        [Hypothesis(labels, total, next(frames) if k < n_aligned else None) for k, (total, labels) in enumerate(found)]
        for found in ordered
    ]


def _score(found: tuple[float, list[int]]) -> float:
    return -found[0]


def _tensors(sequences: list[list[int]], rows: list[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """classes (N,L), their lengths (N,) and the utterances (N,) they are of"""
    label_lens = torch.tensor([len(labels) for labels in sequences])
    classes = torch.zeros(len(sequences), max(1, int(label_lens.max())), dtype=torch.long)
    flat = torch.tensor([label + 1 for labels in sequences for label in labels], dtype=torch.long)
    classes[valid_frames(label_lens, classes.shape[1])] = flat
    return classes.to(device), label_lens.to(device), torch.tensor(rows, device=device)
