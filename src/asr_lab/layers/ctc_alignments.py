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

    Scores of frames need not be normalised. The sum runs over products in float64, relative to each frame's best class;
    what comes near the end of float64's range is summed again in logarithms, as PyTorch's loss does it.
    """
    log_probs = ended(log_probs, lens)
    best = log_probs.amax(dim=-1, keepdim=True)
    probs = (log_probs - best).double().exp().transpose(0, 1).contiguous()  # (U, B, V+1)
    where, may_skip = _lattice(labels, rows, probs.shape[2])
    skips, flat = may_skip.double(), where.flatten()
    blank = probs.new_zeros(len(where) + 1, len(rows))  # (L+1, N) sums that end in the blank before label i
    label, moved = torch.zeros_like(blank[1:]), torch.empty_like(blank[1:])  # (L, N) sums that end in label i
    blank[0] = 1
    for frame in probs:
        torch.add(label, blank[:-1], out=moved)
        moved[1:].addcmul_(skips, label[:-1])
        blank[1:] += label
        blank *= frame[rows, 0]
        label, moved = moved.mul_(frame.view(-1).index_select(0, flat).view_as(where)), label
    total = (_at(blank, label_lens) + _at(label, label_lens - 1)).log()
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
    log_probs = ended(log_probs, lens).transpose(0, 1).contiguous()  # (U, B, V+1)
    n_at_once = max(1, AT_ONCE // (len(log_probs) * (2 * labels.shape[1] + 1)))
    parts = zip(*(x.split(n_at_once) for x in (labels, label_lens, rows)), strict=True)
    return torch.cat([_viterbi(log_probs, *part) for part in parts])


def _viterbi(log_probs: Tensor, labels: Tensor, label_lens: Tensor, rows: Tensor) -> Tensor:
    where, may_skip = _lattice(labels, rows, log_probs.shape[2])
    n_frames, (n_labels, n), flat = len(log_probs), where.shape, where.flatten()
    skip_cost = log_probs.new_full((n_labels, n), -torch.inf)
    skip_cost[1:].masked_fill_(may_skip, 0)
    # Of each frame the scores of blanks, of a label before the first that nothing reaches, and of labels.
    best = log_probs.new_empty(n_frames + 1, 2, n_labels + 1, n)
    best[0] = -torch.inf
    best[:, 1, 0] = -torch.inf
    best[0, 0, 0] = 0  # before the first frame, as if in a blank
    blanks, with_none = best[:, 0].unbind(), best[:, 1].unbind()
    blanks_before, before, labels_at = (x.unbind() for x in (best[:, 0, :-1], best[:, 1, :-1], best[:, 1, 1:]))
    for t, frame in enumerate(log_probs):
        torch.maximum(blanks[t], with_none[t], out=blanks[t + 1])
        blanks[t + 1].add_(frame[rows, 0])
        label = torch.maximum(labels_at[t], blanks_before[t], out=labels_at[t + 1])
        torch.maximum(label, before[t] + skip_cost, out=label)
        label += frame.view(-1).index_select(0, flat).view_as(where)
    return _traced(best[1:].flatten(1, 2), skip_cost, label_lens)


def _traced(best: Tensor, skip_cost: Tensor, label_lens: Tensor) -> Tensor:
    """(U,2L+2,N) scores of blanks, nothing and labels, (L,N), (N,) -> (N,U) states, from the last frame back"""
    n_labels, device = len(skip_cost), best.device
    nothing = n_labels + 1
    blanks, labels = torch.arange(nothing, device=device), torch.arange(nothing + 1, best.shape[1], device=device)
    pad = torch.full_like(blanks[:1], nothing)
    # What each may follow: itself; of blanks the label before, of labels the blank before; of labels the label before.
    other = torch.cat([blanks + nothing, pad, labels - nothing - 1])
    come = torch.stack(
        [torch.arange(len(other), device=device), other, torch.cat([pad.expand(nothing + 1), labels - 1])]
    )
    costs = torch.nn.functional.pad(skip_cost, (0, 0, nothing + 1, 0))
    ends = torch.stack([label_lens, label_lens + nothing])
    row = ends.gather(0, best[-1].gather(0, ends).argmax(dim=0, keepdim=True))[0]
    path = [row]
    for scores in best[:-1].unbind()[::-1]:
        rows = come[:, row]  # (3, N)
        reached = scores.gather(0, rows)
        reached[2] += costs.gather(0, row[None])[0]
        row = rows.gather(0, reached.argmax(dim=0, keepdim=True))[0]
        path.append(row)
    states = torch.cat([2 * blanks, pad, 2 * (labels - nothing) - 1])
    return states[torch.stack(path[::-1], dim=1)]


def first_frames(path: Tensor) -> Iterator[list[int]]:
    """(N,U) states of `viterbi` -> of each sequence the frame at which each label begins"""
    starts = path % 2 == 1
    starts[:, 1:] &= path[:, 1:] != path[:, :-1]
    frames = torch.arange(path.shape[1])
    return (frames[row].tolist() for row in starts.cpu())


def _lattice(labels: Tensor, rows: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """(N,L), (N,) -> with sequences side by side, at least one label each: where in a frame (B,V+1) of all utterances
    each label stands (L,N), and whether those from the second on (L-1,N) may follow the one before without a blank"""
    classes = (labels if labels.shape[1] else torch.nn.functional.pad(labels, (0, 1))).T.contiguous()
    return classes + rows * n_classes, classes[1:] != classes[:-1]


def _at(sums: Tensor, index: Tensor) -> Tensor:
    """(S,N), (N,) -> (N,), 0 where the index is negative"""
    return sums.gather(0, index.clamp(min=0)[None])[0].masked_fill(index < 0, 0)
