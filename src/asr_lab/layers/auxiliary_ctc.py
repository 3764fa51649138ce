"""A CTC loss beside a decoder's own, on the same encoder."""

import torch
from torch import Tensor, nn


class NoAuxiliary(nn.Module):
    """The decoder's own loss alone."""

    def __init__(self, in_dim: int, n_labels: int):
        super().__init__()

    def forward(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> None:
        return None

    def min_frames(self, labels: Tensor, label_lens: Tensor) -> Tensor:
        return torch.ones_like(label_lens)


class AuxiliaryCtc(nn.Module):
    """CTC (Graves et al. 2006) through an output layer of its own: pulls labels to their frames early in training."""

    def __init__(self, in_dim: int, n_labels: int, weight: float):
        super().__init__()
        if weight <= 0:
            raise ValueError(f"auxiliary.weight must be positive, {weight} came; to go without: decoder/auxiliary=none")
        self.output = nn.Linear(in_dim, n_labels + 1)
        self.weight = weight

    def forward(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,U,D), (B,), (B,L), (B,) -> (B,) nats, not weighted; inf where no alignment exists"""
        log_probs = self.output(hidden).float().log_softmax(dim=-1).transpose(0, 1)
        return nn.functional.ctc_loss(
            log_probs, labels, lens, label_lens, blank=log_probs.shape[-1] - 1, reduction="none"
        )

    def min_frames(self, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,L), (B,) -> (B,): one frame a label, and a blank between equal neighbours"""
        inside = torch.arange(1, labels.shape[1], device=labels.device) < label_lens[:, None]
        return label_lens + ((labels[:, 1:] == labels[:, :-1]) & inside).sum(dim=1)
