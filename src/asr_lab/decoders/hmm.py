"""Hybrid of a network and hidden Markov models (Bourlard & Morgan 1994), from a flat start, without Gaussians."""

import math

import torch
from torch import Tensor, nn

from asr_lab.decoders import Span
from asr_lab.layers.dropout import Dropout
from asr_lab.layers.hmm_chain import (
    NEVER,
    Chain,
    best_path,
    equal_segments,
    occupancies,
    picked,
)
from asr_lab.layers.masks import valid_frames

MODES = ("full_sum", "baum_welch", "viterbi")
# A state that was never seen would win every frame of a search when its posterior is divided by its prior.
LEAST_PRIOR = 1e-6
# States that last one frame, or for ever, would forbid paths.
LOOP_RANGE = (0.01, 0.99)
FEW = 1e-6


class HmmDecoder(nn.Module):
    """Each label is a left-to-right chain of `n_states` states with loops; the network gives p(state | frame).

    Output v * n_states + j is state j of label v. With `silence=ends` one more output is a state of silence, which
    stands before the first and after the last label with probability 1/2 each; between words it is the tokenizer's
    word boundary, a label as any other, that learns it. A frame scores p(s|x) / p(s)^prior_scale; the priors are a
    running mean of the posteriors in training, uniform at first.
    """

    def __init__(
        self,
        in_dim: int,
        n_labels: int,
        n_states: int,
        silence: str,
        training: str,
        flat_steps: int,
        prior_scale: float,
        momentum: float,
        p_loop: float | str,
        dropout: float,
    ):
        """`training`: `full_sum`, `baum_welch` or `viterbi`, after `flat_steps` batches with equal segments; `momentum`
        is that of the priors and of the estimated `p_loop` (a number, or `estimated`)."""
        super().__init__()
        if n_states < 1 or flat_steps < 0:
            raise ValueError(f"n_states is at least 1 and flat_steps at least 0, {n_states} and {flat_steps} came")
        if silence not in ("none", "ends"):
            raise ValueError(f"silence={silence}; choose from: none, ends")
        if training not in MODES:
            raise ValueError(f"training={training}; choose from: {', '.join(MODES)}")
        if p_loop != "estimated" and (isinstance(p_loop, str) or not LOOP_RANGE[0] <= p_loop <= LOOP_RANGE[1]):
            raise ValueError(
                f"p_loop is a probability of {LOOP_RANGE[0]} to {LOOP_RANGE[1]}, or 'estimated'; {p_loop} came"
            )
        if prior_scale < 0 or not 0 <= momentum < 1:
            raise ValueError(f"prior_scale >= 0 and momentum in [0, 1) are wanted, {prior_scale} and {momentum} came")
        self.n_states, self.has_silence, self.mode = n_states, silence == "ends", training
        self.flat_steps, self.prior_scale, self.momentum = flat_steps, prior_scale, momentum
        self.estimates = p_loop == "estimated"
        self.silence = n_labels * n_states  # the output of silence
        n_outputs = self.silence + self.has_silence
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(in_dim, n_outputs)
        self.first_leave = 0.5 if isinstance(p_loop, str) else 1 - p_loop
        self.register_buffer("prior", torch.full((n_outputs,), 1 / n_outputs))
        # Expected visits of each state and frames in it; their ratio is the probability of leaving.
        self.register_buffer("visits", torch.full((n_outputs,), self.first_leave))
        self.register_buffer("frames", torch.ones(n_outputs))
        self.register_buffer("n_steps", torch.zeros((), dtype=torch.long))
        self.prior: Tensor
        self.visits: Tensor
        self.frames: Tensor
        self.n_steps: Tensor

    def log_probs(self, hidden: Tensor) -> Tensor:
        """(B,U,D) -> (B,U,K) log-posteriors of the states, in float32 whatever the autocast (float64 stays)"""
        logits = self.output(self.dropout(hidden))
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)

    def scaled(self, log_probs: Tensor, prior_scale: float) -> Tensor:
        """(B,U,K) -> (B,U,K) log p(s|x) / p(s)^prior_scale"""
        return log_probs - prior_scale * self.prior.clamp(min=LEAST_PRIOR).log()

    def transitions(self) -> tuple[Tensor, Tensor]:
        """(K,), (K,): log-probabilities of staying in each state and of leaving it"""
        # What is not seen any more fades away in both means, and leaves the first value.
        leave = (self.visits + FEW * self.first_leave) / (self.frames + FEW)
        loop = (1 - leave).clamp(*LOOP_RANGE)
        return loop.log(), (1 - loop).log()

    @property
    def log_choice(self) -> float:
        """Of silence, and of none, at an end."""
        return math.log(0.5) if self.has_silence else 0.0

    def loss(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,) in nats; inf where no path exists.

        In evaluation, whatever the mode: -log of the sum over all paths of posteriors and transitions, priors left out.
        In training: `full_sum` the same with priors, which can be negative; `baum_welch` the cross entropy with the
        expected occupancies, `viterbi` with the best path, both of the present model.
        """
        log_probs = self.log_probs(hidden)
        with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
            chain = self.chain(labels, label_lens)
            total, shares = self._shares(log_probs, chain, lens)
            # Products with 0 and 1, for on CUDA scattered sums differ from run to run.
            outputs = nn.functional.one_hot(chain.states, log_probs.shape[2]).to(shares.dtype)
            targets = shares @ outputs  # (B, U, K)
            if self.training:
                self._learn(log_probs, targets, self._visits(shares, lens, label_lens), outputs, lens)
        loss = -(targets * log_probs).sum(dim=(1, 2))
        if total is not None:  # Fisher's identity: the sum's gradient is that of the cross entropy
            loss = loss + (-total - loss).detach()
        return loss.masked_fill(lens < self.min_frames(labels, label_lens), math.inf)

    def _shares(self, log_probs: Tensor, chain: Chain, lens: Tensor) -> tuple[Tensor | None, Tensor]:
        """(log of the sum where it is the loss, what share of each frame a position gets (B,U,S))"""
        n_frames = log_probs.shape[1]
        if not self.training:
            return occupancies(picked(log_probs, chain), chain, lens)
        if self.n_steps < self.flat_steps:
            path = equal_segments(chain, lens, n_frames)
        else:
            scores = picked(self.scaled(log_probs, self.prior_scale), chain)
            if self.mode != "viterbi":
                total, shares = occupancies(scores, chain, lens)
                return total if self.mode == "full_sum" else None, shares
            path = best_path(scores, chain, lens)[1]
        shares = nn.functional.one_hot(path, chain.states.shape[1]).to(log_probs.dtype)
        return None, shares * valid_frames(lens, n_frames)[:, :, None]

    def _visits(self, shares: Tensor, lens: Tensor, label_lens: Tensor) -> Tensor:
        """(B,S) expected visits: one to each state of the labels; to silence, as probable as it is at its end."""
        pad, last = int(self.has_silence), self.n_states * label_lens[:, None]
        places = torch.arange(shares.shape[2], device=lens.device) - pad
        visits = ((places >= 0) & (places < last)).to(shares.dtype)
        if pad:
            at_end = shares[torch.arange(len(lens), device=lens.device), lens - 1]
            visits[:, 0] = shares[:, 0, 0]
            visits.scatter_(1, last + 1, at_end.gather(1, last + 1))
        return visits

    def _learn(self, log_probs: Tensor, targets: Tensor, visits: Tensor, outputs: Tensor, lens: Tensor) -> None:
        """Running means of the posteriors and, for the transitions, of the expected counts."""
        self.n_steps += 1
        valid = valid_frames(lens, log_probs.shape[1])[:, :, None]
        self.prior.lerp_((log_probs.exp() * valid).sum(dim=(0, 1)) / lens.sum(), 1 - self.momentum)
        if self.estimates:
            self.visits.lerp_((visits[:, None] @ outputs).sum(dim=(0, 1)), 1 - self.momentum)
            self.frames.lerp_(targets.sum(dim=(0, 1)), 1 - self.momentum)

    def chain(self, labels: Tensor, label_lens: Tensor) -> Chain:
        """(B,L), (B,) -> [silence] states of the labels [silence]"""
        n, pad, device = self.n_states, int(self.has_silence), labels.device
        inner = labels.repeat_interleave(n, dim=1) * n + torch.arange(labels.shape[1] * n, device=device) % n
        places = torch.arange(inner.shape[1] + 2 * pad, device=device)
        last = (n * label_lens - 1 + pad)[:, None]
        inside = (places >= pad) & (places <= last)
        silence = self.silence if pad else 0
        states = torch.where(inside, nn.functional.pad(inner, (pad, pad)), silence)
        loop, leave = (weights[states] for weights in self.transitions())
        begin = torch.full_like(loop, NEVER)
        begin[:, : 1 + pad] = self.log_choice
        enter = nn.functional.pad(leave[:, :-1], (1, 0), value=NEVER)
        enter = torch.where(places == last + 1, enter + self.log_choice, enter)
        end = torch.where(places == last, leave + self.log_choice, NEVER)
        if pad:
            end = torch.where(places == last + 1, leave, end)
        return Chain(states, begin, loop, enter, end)

    def min_frames(self, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,L), (B,) -> (B,): one frame a state"""
        return (self.n_states * label_lens).clamp(min=1)

    @torch.no_grad()
    def align(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> list[list[Span]]:
        """The best path; silence at the ends belongs to no label."""
        log_probs, chain = self.log_probs(hidden), self.chain(labels, label_lens)
        _, path = best_path(picked(self.scaled(log_probs, self.prior_scale), chain), chain, lens)
        said = picked(log_probs, chain).gather(2, path[:, :, None])[:, :, 0]  # (B, U)
        starts, ends = self.bounds(path, lens, label_lens)
        rows = []
        for i, n in enumerate(label_lens.tolist()):
            places = zip(labels[i, :n].tolist(), starts[i].tolist(), ends[i].tolist(), strict=False)
            rows.append([Span(label, a, b, float(said[i, a:b].mean())) for label, a, b in places])
        return rows

    def bounds(self, path: Tensor, lens: Tensor, label_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Positions of paths (B,U) -> first frames of the labels (B,L), frames after their last (B,L)"""
        # A path never goes back, so the frames of a label lie between two insertions into a sorted row.
        edges = torch.arange(int(label_lens.max()) + 1, device=path.device) * self.n_states + self.has_silence
        bounds = torch.searchsorted(path.contiguous(), edges.expand(len(path), -1).contiguous())
        bounds = torch.minimum(bounds, lens[:, None])
        return bounds[:, :-1], bounds[:, 1:]

    def posteriors(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,U,K), (B,U)"""
        return self.log_probs(hidden), valid_frames(lens, hidden.shape[1])
