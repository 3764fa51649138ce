"""The transducer's lattice (Graves 2012): sums and best paths over all ways to place labels in frames.

At a node (t, u) frame t is being read and u labels are said; a blank leads to (t+1, u), the next label to (t, u+1). A
path begins at (0, 0) and ends with the blank of (lens-1, label_lens). No path that leaves these bounds comes back, so
that what stands in the padding needs no mask. Nodes of one anti-diagonal t+u depend only on the one before: B lattices
are walked in U+L steps, each of a few operations on (B, L+1).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Forward(NamedTuple):
    """Skewed tensors are (U+L, B, L+1): row t+u, column u."""

    alpha: Tensor  # skewed; log of the sum over (or of the best of) the paths that reach a node
    label: Tensor  # skewed; log-probability of the next label
    ends: tuple[Tensor, Tensor, Tensor]  # index of each lattice's last node in a skewed tensor
    total: Tensor  # (B,) log of the sum over (or of the best of) whole paths


@torch.no_grad()
def forward(blank: Tensor, label: Tensor, lens: Tensor, label_lens: Tensor, best: bool) -> Forward:
    """(B,U,L+1) log-probabilities of the blank and of the next label at each node, (B,), (B,); `label[:, :, L]` is
    never read. With `best`, the best path counts instead of the sum over all. No gradient: see transducer_loss.py."""
    blank, label = _skewed(blank), _skewed(label)
    alpha = torch.full_like(label, -torch.inf)
    alpha[0, :, 0] = 0
    join = torch.maximum if best else torch.logaddexp
    for before, after, b, k in zip(alpha[:-1], alpha[1:], blank, label, strict=False):
        torch.add(before, b, out=after)
        after[:, 1:] = join(after[:, 1:], before[:, :-1] + k[:, :-1])
    ends = (lens - 1 + label_lens, torch.arange(len(lens), device=lens.device), label_lens)
    return Forward(alpha, label, ends, alpha[ends] + blank[ends])


def occupancies(walked: Forward, best: bool) -> tuple[Tensor, Tensor]:
    """((B,U,L+1), (B,U,L+1)): the posterior probability that a path takes the blank, and the label, of each node; with
    `best`, 1 on the best path and 0 elsewhere.

    Walked backwards: a node hands its own posterior to the two that lead to it, in the proportion in which they made up
    its sum. All numbers are in [0, 1], so that nothing overflows.
    """
    alpha, label, ends, _ = walked
    arrived = alpha[:-1, :, :-1] + label[:-1, :, :-1]
    by_label = torch.zeros_like(alpha[1:])
    by_label[:, :, 1:] = arrived == alpha[1:, :, 1:] if best else (arrived - alpha[1:, :, 1:]).exp().nan_to_num_(0.0)
    by_blank = 1 - by_label
    node = torch.zeros_like(alpha)
    node[ends] = 1
    for i in range(len(node) - 2, -1, -1):
        node[i].addcmul_(node[i + 1], by_blank[i])
        node[i, :, :-1].addcmul_(node[i + 1, :, 1:], by_label[i, :, 1:])
    by_label.mul_(node[1:])
    said = torch.zeros_like(node)
    said[:-1, :, :-1] = by_label[:, :, 1:]
    return _straight(node - said), _straight(said)


def _skewed(x: Tensor) -> Tensor:
    """(B,U,L+1) -> (U+L,B,L+1), -inf where no node is"""
    n, n_frames, width = x.shape
    skewed = x.new_full((n_frames + width - 1, n, width), -torch.inf)
    _straight(skewed).copy_(x)
    return skewed


def _straight(skewed: Tensor) -> Tensor:
    """(U+L,B,L+1) -> (B,U,L+1), a view"""
    n_rows, n, width = skewed.shape
    return skewed.as_strided((n, n_rows - width + 1, width), (width, n * width, n * width + 1))
