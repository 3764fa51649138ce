"""Connectionist temporal classification (Graves et al. 2006): a frame-wise output layer with a blank."""

import torch
from torch import Tensor, nn

from asr_lab.decoders import Span
from asr_lab.errors import ConfigError, DataError
from asr_lab.layers.ctc_alignments import viterbi
from asr_lab.layers.dropout import Dropout
from asr_lab.layers.masks import valid_frames


class CtcDecoder(nn.Module):
    """Linear output layer over the vocabulary and a blank.

    The blank is id 0 inside; labels of the tokenizer are shifted by one on the way in and out. In training the loss has
    `- entropy_weight` times the entropy of each frame's distribution, summed over frames: a penalty on confidence
    (Pereyra et al. 2017) against CTC's spikes, and not the entropy over alignments of Liu et al. (2018). A running mean
    of the posteriors, of which each step keeps `prior_decay`, estimates the prior that searches may take off.
    """

    BLANK = 0
    prior: Tensor

    def __init__(
        self,
        in_dim: int,
        n_labels: int,
        dropout: float,
        loss_on_cpu: bool,
        entropy_weight: float,
        prior_decay: float,
    ):
        super().__init__()
        if entropy_weight < 0:
            raise ValueError(f"entropy_weight must not be negative, {entropy_weight} came")
        if not 0 <= prior_decay < 1:
            raise ValueError(f"prior_decay is a share in [0, 1), {prior_decay} came")
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(in_dim, n_labels + 1)
        # CUDA's CTC backward adds with atomics and is not reproducible; the CPU's is.
        self.loss_on_cpu = loss_on_cpu
        self.entropy_weight, self.prior_decay = entropy_weight, prior_decay
        self.register_buffer("prior", torch.zeros(n_labels + 1))  # all 0: none yet
        self.terms: dict[str, Tensor] = {}

    def log_probs(self, hidden: Tensor) -> Tensor:
        """(B,U,D) -> (B,U,V+1), in float32 whatever the autocast"""
        return self.output(self.dropout(hidden)).float().log_softmax(dim=-1)

    def loss(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,U,D), (B,), (B,L), (B,) -> (B,) negative log-likelihood in nats; inf where no alignment exists"""
        log_probs = self.log_probs(hidden)
        loss = self.ctc_loss(log_probs, lens, labels, label_lens)
        self.terms = {}
        if self.training:
            valid = valid_frames(lens, log_probs.shape[1])[:, :, None]
            self._see(log_probs.detach(), valid)
            if self.entropy_weight:
                entropy = -(log_probs.exp() * log_probs).masked_fill(~valid, 0).sum(dim=(1, 2))
                self.terms = {"ctc": loss.detach(), "entropy": entropy.detach()}
                loss = loss - self.entropy_weight * entropy
        return loss

    def ctc_loss(self, log_probs: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,U,V+1), (B,), (B,L), (B,) -> (B,)"""
        log_probs, targets, device = log_probs.transpose(0, 1), labels + 1, log_probs.device
        if self.loss_on_cpu:
            log_probs, targets, lens, label_lens = (t.cpu() for t in (log_probs, targets, lens, label_lens))
        # zero_infinity stays off: an impossible utterance is bad data and must be seen, not hidden.
        loss = nn.functional.ctc_loss(log_probs, targets, lens, label_lens, blank=self.BLANK, reduction="none")
        return loss.to(device)

    def min_frames(self, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,L), (B,) -> (B,): one frame a label, and a blank between equal neighbours"""
        inside = torch.arange(1, labels.shape[1], device=labels.device) < label_lens[:, None]
        repeats = ((labels[:, 1:] == labels[:, :-1]) & inside).sum(dim=1)
        return label_lens + repeats

    @torch.no_grad()
    def _see(self, log_probs: Tensor, valid: Tensor) -> None:
        mean = log_probs.exp().masked_fill(~valid, 0).sum(dim=(0, 1)) / valid.sum()
        mean = torch.where(self.prior.any(), self.prior_decay * self.prior + (1 - self.prior_decay) * mean, mean)
        # A step that explodes is left out by training, and here too.
        self.prior.copy_(torch.where(mean.isfinite().all(), mean, self.prior))

    def log_prior(self) -> Tensor:
        """(V+1,): the logarithm of how probable blank and labels were on average, late in training

        Raises:
            ConfigError: nothing was trained yet.
        """
        if not self.prior.any():
            raise ConfigError("decoding.prior_weight: this decoder has not been trained and has no prior; set it to 0")
        return self.prior.clamp(min=torch.finfo(self.prior.dtype).tiny).log()

    def posteriors(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> tuple[Tensor, Tensor]:
        """-> (B,U,V+1) log-probabilities of each frame, (B,U) valid; labels do not matter"""
        return self.log_probs(hidden), valid_frames(lens, hidden.shape[1])

    @torch.no_grad()
    def align(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> list[list[Span]]:
        """(B,U,D), (B,), (B,L), (B,) -> where each label lies in the best alignment

        Raises:
            DataError: an utterance has fewer frames than its labels need.
        """
        needed = self.min_frames(labels, label_lens)
        for length, least in zip(lens.tolist(), needed.tolist(), strict=True):
            if length < least:
                raise DataError(f"no alignment: the labels need {least} encoder frames, the utterance has {length}")
        log_probs = self.log_probs(hidden)
        path = viterbi(log_probs, lens, labels + 1, label_lens, torch.arange(len(labels), device=labels.device))
        known = zip(path.cpu(), log_probs.cpu(), labels.tolist(), strict=True)
        return [_spans(states, scores, row) for states, scores, row in known]


def _spans(states: Tensor, scores: Tensor, labels: list[int]) -> list[Span]:
    """(U,) states of the best alignment, (U,V+1) -> a span for each run of frames in a label's state"""
    spans, end = [], 0
    for state, n in zip(*(x.tolist() for x in states.unique_consecutive(return_counts=True)), strict=True):
        start, end = end, end + n
        if state % 2:
            label = labels[state // 2]
            spans.append(Span(label, start, end, scores[start:end, label + 1].mean().item()))
    return spans
