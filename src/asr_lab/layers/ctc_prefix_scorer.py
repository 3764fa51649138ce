"""How probable it is, for a CTC model, that a transcript begins with given labels (Graves 2012, section 7.5.3).

For labels g, n_t is the probability of all paths of t frames that say g and end in its last label, b_t of those that
end in a blank. A next label c is first said in frame t + 1 with probability phi_t p_{t+1}(c), where phi is n + b, and
b alone if c repeats the last label. So the probability of all transcripts that begin with gc is

    psi(gc) = sum_t phi_t p_{t+1}(c)

which is one matrix product for all hypotheses and all labels. Only for the hypotheses that go on, n and b are needed:

    n'_{t+1} = (n'_t + phi_t) p_{t+1}(c)        b'_{t+1} = (b'_t + n'_t) p_{t+1}(blank)

Divided by the running products of p(c) and of p(blank) both are cumulative sums: no loop over frames. All is in the
log domain and in float64 (a running sum is large beside what is added to it); the matrix product alone has
probabilities, scaled for each hypothesis.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from asr_lab.layers.masks import valid_frames
from asr_lab.layers.shared_memory import SharedMemory

NEVER = -1e4  # a log-probability of a frame is not lower: running sums stay finite


class PrefixState(NamedTuple):
    """N hypotheses. Index t of T = U + 1 says: after t frames of the hypothesis' utterance."""

    # (B,U,V+1) log-probabilities, (B,U,V) probabilities of labels, 0 in the padding, (B,T) running sums of the blank's
    # log-probabilities, (B,) lengths
    frames: SharedMemory
    in_label: Tensor  # (N,T) log n
    in_blank: Tensor  # (N,T) log b
    last: Tensor  # (N,) the last label, -1 at the beginning
    log_psi: Tensor  # (N,) of the labels so far


class CtcPrefixScorer:
    """`Scorer` of asr_lab.decoding: what each next label adds to the log-probability of the prefix.

    Summed over a sentence with its end, that is log p(labels). What cannot be said in the frames there are has -inf.
    """

    def begin(self, log_probs: Tensor, lens: Tensor) -> PrefixState:
        """(B,U,V+1) with the blank first, (B,) -> B hypotheses that have said nothing"""
        outside = ~valid_frames(lens, log_probs.shape[1])[:, :, None]
        wide = log_probs.double().clamp(min=NEVER).masked_fill(outside, 0)
        blanks = _running_sum(wide[:, :, 0])
        frames = SharedMemory((wide, wide[:, :, 1:].exp().masked_fill(outside, 0), blanks, lens), 1)
        log_psi = torch.zeros_like(blanks[:, 0])
        return PrefixState(frames, torch.full_like(blanks, -torch.inf), blanks, torch.full_like(lens, -1), log_psi)

    def scores(self, state: PrefixState) -> Tensor:
        """(N, V+1) float32"""
        _, probs, _, lens = state.frames.tensors
        lens, rows = _spread(state.frames, lens), torch.arange(state.last.shape[0], device=lens.device)
        said = torch.logaddexp(state.in_label, state.in_blank)  # log phi
        before = said[:, :-1].masked_fill(~valid_frames(lens, probs.shape[1]), -torch.inf)
        scale = before.amax(dim=1, keepdim=True).clamp(min=torch.finfo(before.dtype).min)
        mass = state.frames.by_utterance((before - scale).exp()) @ probs  # (B, W, V)
        log_psi = mass.flatten(0, 1).log() + scale
        repeated = state.last.clamp(min=0)
        again = self._log_psi(state, repeated, state.in_blank)
        log_psi[rows, repeated] = torch.where(state.last < 0, log_psi[rows, repeated], again)
        end = said.gather(1, lens[:, None])
        added = torch.cat([log_psi, end], dim=1) - state.log_psi[:, None]
        return added.masked_fill(state.log_psi[:, None] == -torch.inf, -torch.inf).float()

    def advance(self, state: PrefixState, labels: Tensor) -> PrefixState:
        spoken = _running_sum(self._log_probs_of(state, labels))
        blanks = _spread(state.frames, state.frames.tensors[2])
        either = torch.logaddexp(state.in_label, state.in_blank)
        phi = torch.where((labels == state.last)[:, None], state.in_blank, either)
        in_label = _recurrence(phi, spoken)
        return PrefixState(
            state.frames, in_label, _recurrence(in_label, blanks), labels, self._log_psi(state, labels, phi)
        )

    def select(self, state: PrefixState, rows: Tensor) -> PrefixState:
        return PrefixState(state.frames.select(rows), *(t[rows] for t in state[1:]))

    def _log_probs_of(self, state: PrefixState, labels: Tensor) -> Tensor:
        """(N,) -> (N,U): each hypothesis' own label in all frames"""
        wide = state.frames.tensors[0]
        ids = state.frames.by_utterance(labels + 1)[:, None].expand(-1, wide.shape[1], -1)
        return wide.gather(2, ids).transpose(1, 2).flatten(0, 1)

    def _log_psi(self, state: PrefixState, labels: Tensor, phi: Tensor) -> Tensor:
        """(N,), log phi (N,T) -> (N,) of the prefixes with one more label"""
        lens = _spread(state.frames, state.frames.tensors[3])
        terms = phi[:, :-1] + self._log_probs_of(state, labels)
        return terms.masked_fill(~valid_frames(lens, terms.shape[1]), -torch.inf).logsumexp(dim=1)


def _spread(frames: SharedMemory, x: Tensor) -> Tensor:
    """(B,...) -> (N,...)"""
    return x.repeat_interleave(frames.width, dim=0)


def _running_sum(x: Tensor) -> Tensor:
    """(N,U) -> (N,T), 0 first"""
    return torch.nn.functional.pad(x.cumsum(dim=1), (1, 0))


def _recurrence(source: Tensor, running: Tensor) -> Tensor:
    """(N,T) log s, (N,T) running sums of log p -> (N,T) log y of y_{t+1} = (y_t + s_t) p_{t+1}, y_0 = 0"""
    summed = torch.logcumsumexp(source[:, :-1] - running[:, :-1], dim=1)
    return torch.nn.functional.pad(summed + running[:, 1:], (1, 0), value=-torch.inf)
