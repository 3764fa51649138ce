"""Sums and maxima over CTC's alignments (Graves et al. 2006), for many label sequences an utterance at once.

Everywhere here a class is 0 for the blank and 1..V for labels; `rows` (N,) says of which utterance a sequence is.
An alignment walks over the states blank, label 1, blank, label 2, ..., blank: S = 2L + 1 of them.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from asr_lab.layers.masks import valid_frames

# Below exp of this, relative to the best path of the frames, products in float64 could have lost a part of the sum.
TRUSTED = -400.0
AT_ONCE = 2**22  # numbers that a table of all frames and states may hold


def ended(log_probs: Tensor, lens: Tensor) -> Tensor:
    """(B,U,V+1), (B,) -> the same with certain blanks in the padding: no sum, maximum or search then sees it."""
    padding = ~valid_frames(lens, log_probs.shape[1])[:, :, None]
    certain = torch.full_like(log_probs[:1, :1], -torch.inf)
    certain[..., 0] = 0
    return torch.where(padding, certain, log_probs)


def log_likelihood(log_probs: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor, rows: Tensor) -> Tensor:
    """(B,U,V+1), (B,), classes (N,L), (N,), (N,) -> (N,) float32 log of the sum over alignments; -inf where none is.

    Scores of frames need not be normalised. The sum runs over products in float64, relative to each frame's best class:
    7 times as fast as PyTorch's loss on CPU for 500 sequences of 40 labels. What comes near the end of float64's range
    is summed again in logarithms.
    """
    log_probs = ended(log_probs, lens)
    best = log_probs.amax(dim=-1, keepdim=True)
    probs = (log_probs - best).double().exp()[rows]  # (N, U, V+1)
    states, may_skip = _states(labels)
    skips = may_skip.double()
    emitted = probs.gather(2, states[:, None].expand(-1, probs.shape[1], -1)).transpose(0, 1).contiguous()
    alpha = probs.new_zeros(states.shape)
    alpha[:, :2] = emitted[0, :, :2]
    for emission in emitted[1:]:
        after = alpha.clone()
        after[:, 1:] += alpha[:, :-1]
        after[:, 2:].addcmul_(alpha[:, :-2], skips)
        alpha = after.mul_(emission)
    total = _at_end(alpha, label_lens).sum(dim=1).log()
    doubtful = (~(total > TRUSTED) | total.isinf()).nonzero()[:, 0]
    total += best.double().sum(dim=(1, 2))[rows]
    if len(doubtful):
        some = rows[doubtful]
        total[doubtful] = -torch.nn.functional.ctc_loss(
            log_probs[some].double().transpose(0, 1), labels[doubtful], lens[some], label_lens[doubtful],
            reduction="none",
        )  # fmt: skip
    return total.float()


def viterbi(log_probs: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor, rows: Tensor) -> Tensor:
    """(B,U,V+1), (B,), classes (N,L), (N,), (N,) -> (N,U) state of the best alignment at each frame.

    State 2i + 1 is label i, even ones are blanks; the padding is in the last blank. Where a sequence has no alignment,
    what comes back means nothing.
    """
    log_probs = ended(log_probs, lens)
    n_at_once = max(1, AT_ONCE // (log_probs.shape[1] * (2 * labels.shape[1] + 1)))
    parts = zip(*(x.split(n_at_once) for x in (labels, label_lens, rows)), strict=True)
    return torch.cat([_viterbi(log_probs, *part) for part in parts])


def _viterbi(log_probs: Tensor, labels: Tensor, label_lens: Tensor, rows: Tensor) -> Tensor:
    states, may_skip = _states(labels)
    n, n_states = states.shape
    n_frames = log_probs.shape[1]
    skip_cost = torch.full_like(states, -torch.inf, dtype=log_probs.dtype)
    skip_cost[:, 2:].masked_fill_(may_skip, 0)
    # Two columns that nothing reaches stand before the first state, so that every state has three to come from.
    best = log_probs.new_full((n_frames, n, n_states + 2), -torch.inf)
    best[0, :, 2:4] = log_probs[rows, 0].gather(1, states[:, :2])
    for t in range(1, n_frames):
        before = best[t - 1]
        come = torch.maximum(before[:, 2:], before[:, 1:-1])
        come = torch.maximum(come, before[:, :-2] + skip_cost)
        best[t, :, 2:] = come + log_probs[rows, t].gather(1, states)
    ends = torch.stack([2 * label_lens, (2 * label_lens - 1).clamp(min=0)], dim=1)
    state = ends.gather(1, best[-1, :, 2:].gather(1, ends).argmax(dim=1, keepdim=True))  # (N, 1)
    back, path = torch.arange(3, device=rows.device), [state]
    for t in reversed(range(n_frames - 1)):
        from_where = best[t].gather(1, state + 2 - back)
        from_where[:, 2:] += skip_cost.gather(1, state)
        state = state - from_where.argmax(dim=1, keepdim=True)
        path.append(state)
    return torch.cat(path[::-1], dim=1)


def first_frames(path: Tensor) -> Iterator[list[int]]:
    """(N,U) states of `viterbi` -> of each sequence the frame at which each label begins"""
    starts = path % 2 == 1
    starts[:, 1:] &= path[:, 1:] != path[:, :-1]
    frames = torch.arange(path.shape[1])
    return (frames[row].tolist() for row in starts.cpu())


def _states(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N,L) -> the class of each state (N,S), and whether the states from the third on may follow the last but one"""
    states = labels.new_zeros(labels.shape[0], 2 * labels.shape[1] + 1)
    states[:, 1::2] = labels
    return states, (states[:, 2:] != 0) & (states[:, 2:] != states[:, :-2])


def _at_end(alpha: Tensor, label_lens: Tensor) -> Tensor:
    """(N,S), (N,) -> (N,2): the last blank and the last label (0 where there is no label)"""
    ends = alpha.gather(1, torch.stack([2 * label_lens, (2 * label_lens - 1).clamp(min=0)], dim=1))
    ends[:, 1] *= label_lens > 0
    return ends
