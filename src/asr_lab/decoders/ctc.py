"""Connectionist temporal classification (Graves et al. 2006): a frame-wise output layer with a blank."""

import torch
from torch import Tensor, nn

from asr_lab.layers.dropout import Dropout


class CtcDecoder(nn.Module):
    """Linear output layer over the vocabulary and a blank.

    The blank is id 0 inside; labels of the tokenizer are shifted by one on the way in and out.
    """

    BLANK = 0

    def __init__(self, in_dim: int, n_labels: int, dropout: float, loss_on_cpu: bool):
        super().__init__()
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(in_dim, n_labels + 1)
        # CUDA's CTC backward adds with atomics and is not reproducible; the CPU's is.
        self.loss_on_cpu = loss_on_cpu

    def log_probs(self, hidden: Tensor) -> Tensor:
        """(B,U,D) -> (B,U,V+1), in float32 whatever the autocast"""
        return self.output(self.dropout(hidden)).float().log_softmax(dim=-1)

    def loss(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,U,D), (B,), (B,L), (B,) -> (B,) negative log-likelihood in nats; inf where no alignment exists"""
        log_probs = self.log_probs(hidden).transpose(0, 1)  # (U, B, V+1)
        targets, device = labels + 1, log_probs.device
        if self.loss_on_cpu:
            log_probs, targets, lens, label_lens = (t.cpu() for t in (log_probs, targets, lens, label_lens))
        # zero_infinity stays off: an impossible utterance is bad data and must be seen, not hidden.
        loss = nn.functional.ctc_loss(log_probs, targets, lens, label_lens, blank=self.BLANK, reduction="none")
        return loss.to(device)

    def min_frames(self, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,L), (B,) -> (B,): one frame a label, and a blank between equal neighbours"""
        inside = torch.arange(1, labels.shape[1]) < label_lens[:, None]
        repeats = ((labels[:, 1:] == labels[:, :-1]) & inside).sum(dim=1)
        return label_lens + repeats
