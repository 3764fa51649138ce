"""The loss of a decoder that predicts label after label, and at last the end."""

import torch
from torch import Tensor


def with_start(labels: Tensor, start: int) -> Tensor:
    """(B,L) -> (B,L+1): what is fed, label `start` before the others"""
    return torch.nn.functional.pad(labels, (1, 0), value=start)


def with_end(labels: Tensor, label_lens: Tensor, end: int) -> tuple[Tensor, Tensor]:
    """(B,L), (B,) -> (B,L+1), (B,L+1) bool: what is predicted, label `end` behind each sequence, and where"""
    places = torch.arange(labels.shape[1] + 1, device=labels.device)
    padded = torch.nn.functional.pad(labels, (0, 1))
    return padded.masked_fill(places == label_lens[:, None], end), places <= label_lens[:, None]


def smoothed_nll(log_probs: Tensor, targets: Tensor, valid: Tensor, smoothing: float) -> Tensor:
    """(B,N,K), (B,N), (B,N) -> (B,) nats: cross-entropy with targets of which a share `smoothing` is spread over all
    K classes (Szegedy et al. 2016, section 7), summed over valid places"""
    nll = -log_probs.gather(2, targets[:, :, None])[:, :, 0]
    if smoothing:
        nll = (1 - smoothing) * nll - smoothing * log_probs.mean(dim=2)
    return nll.masked_fill(~valid, 0).sum(dim=1)
