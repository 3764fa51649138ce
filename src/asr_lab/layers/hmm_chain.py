"""Left-to-right hidden Markov chains in log space: sums and best paths over all state sequences (Rabiner 1989)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from asr_lab.layers.masks import valid_frames

NEVER = float("-inf")


class Chain(NamedTuple):
    """One chain an utterance, padded to the longest. A position stays or goes on to the next; all weights are logs.

    Padding lies behind the last position that may end, so no path that counts comes there.
    """

    states: Tensor  # (B, S) int64, the output that a position reads
    begin: Tensor  # (B, S) weight of the first frame lying there
    loop: Tensor  # (B, S) of staying
    enter: Tensor  # (B, S) of coming from the position before
    end: Tensor  # (B, S) of the last frame lying there


def picked(log_probs: Tensor, chain: Chain) -> Tensor:
    """(B,U,K) -> (B,U,S): what each position of a chain reads"""
    return log_probs.gather(2, chain.states[:, None].expand(-1, log_probs.shape[1], -1))


@torch.no_grad()
def occupancies(scores: Tensor, chain: Chain, lens: Tensor) -> tuple[Tensor, Tensor]:
    """Forward-backward: (B,U,S) -> log of the sum over all paths (B,), share of it at each position (B,U,S).

    The shares of a valid frame sum to 1; they are the gradient of the first by `scores`. All 0 where no path exists.
    """
    # Backwards is forwards on the mirrored chain, so that both are one loop over frames.
    n, (_, u, s) = len(scores), scores.shape
    mirror = (lens[:, None] - 1 - torch.arange(u, device=lens.device)).clamp(min=0)[:, :, None].expand(-1, -1, s)
    back_enter = torch.nn.functional.pad(chain.enter[:, 1:], (0, 1), value=NEVER).flip(1)
    both = _sweep(
        torch.cat([scores, scores.gather(1, mirror).flip(2)]),
        torch.cat([chain.begin, chain.end.flip(1)]),
        torch.cat([chain.loop, chain.loop.flip(1)]),
        torch.cat([chain.enter, back_enter]),
        torch.logaddexp,
    )
    ahead, back = both[:n], both[n:].flip(2).gather(1, mirror)
    total = (_at(ahead, lens - 1) + chain.end).logsumexp(dim=1)
    shares = (ahead + back - scores - total[:, None, None]).exp()
    possible = valid_frames(lens, u) & torch.isfinite(total)[:, None]
    return total, shares.masked_fill(~possible[:, :, None], 0)


@torch.no_grad()
def best_path(scores: Tensor, chain: Chain, lens: Tensor) -> tuple[Tensor, Tensor]:
    """Viterbi: (B,U,S) -> score of the best path (B,), its positions (B,U), the last one repeated in the padding."""
    ahead = _sweep(scores, chain.begin, chain.loop, chain.enter, torch.maximum)
    score, place = (_at(ahead, lens - 1) + chain.end).max(dim=1)
    came = torch.zeros_like(scores, dtype=torch.bool)
    came[:, 1:, 1:] = ahead[:, :-1, :-1] + chain.enter[:, None, 1:] > ahead[:, :-1, 1:] + chain.loop[:, None, 1:]
    came &= valid_frames(lens, scores.shape[1])[:, :, None]
    places = [place]
    for t in range(scores.shape[1] - 1, 0, -1):
        place = place - came[:, t].gather(1, place[:, None])[:, 0].long()
        places.append(place)
    return score, torch.stack(places[::-1], dim=1)


def equal_segments(chain: Chain, lens: Tensor, n_frames: int) -> Tensor:
    """(B, n_frames): positions of a path that gives each position of a chain the same share of the frames."""
    n = torch.isfinite(chain.end).long().mul(torch.arange(1, chain.end.shape[1] + 1, device=lens.device)).amax(dim=1)
    frames = torch.arange(n_frames, device=lens.device)
    return torch.minimum(frames * n[:, None] // lens[:, None], n[:, None] - 1)


def _sweep(
    scores: Tensor, begin: Tensor, loop: Tensor, enter: Tensor, either: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """(N,U,S): weight of all (or the best) paths that are at a position after a frame."""
    n, u, s = scores.shape
    out = scores.new_empty(n, u, s)
    # A column in front from which nobody comes.
    now = torch.cat([scores.new_full((n, 1), NEVER), begin + scores[:, 0]], dim=1)
    out[:, 0] = now[:, 1:]
    for t in range(1, u):
        torch.add(either(now[:, 1:] + loop, now[:, :-1] + enter), scores[:, t], out=out[:, t])
        now[:, 1:] = out[:, t]
    return out


def _at(x: Tensor, frames: Tensor) -> Tensor:
    """(B,U,S), (B,) -> (B,S)"""
    return x[torch.arange(len(x), device=x.device), frames]


__all__ = ["NEVER", "Chain", "best_path", "equal_segments", "occupancies", "picked"]
