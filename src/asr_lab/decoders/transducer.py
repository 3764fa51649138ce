"""The recurrent neural network transducer (Graves 2012): a joint network of encoder frames and labels said so far."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from asr_lab.decoders import Span
from asr_lab.layers.dropout import Dropout
from asr_lab.layers.masks import valid_frames
from asr_lab.layers.transducer_lattice import forward, occupancies
from asr_lab.layers.transducer_loss import arcs

N_JOINT = 1 << 24  # elements of a joint hidden layer that scoring holds at once (64 MiB)


class TransducerDecoder(nn.Module):
    """p(next | frame t, labels so far) = softmax(W tanh(norm(A hidden_t) + norm(B predictor))); the blank is label V.

    A label does not use up its frame: any number may be said in one, so one frame is enough for any labels. What a
    search can find in how many frames is its own limit (`decoding.max_symbols`).
    """

    def __init__(
        self,
        in_dim: int,
        n_labels: int,
        d_joint: int,
        dropout: float,
        n_together: int,
        recompute: bool,
        predictor: Callable[..., Any],
        transducer_loss: Callable[..., Tensor],
        auxiliary: Callable[..., Any],
    ):
        super().__init__()
        if min(d_joint, n_together) < 1:
            raise ValueError(f"d_joint and n_together must be positive, {d_joint} and {n_together} came")
        self.blank = n_labels
        self.n_together, self.recompute = n_together, recompute
        self.dropout = Dropout(dropout)
        self.predictor = predictor(n_labels=n_labels)
        # Without the norms the hyperbolic tangent saturates at high learning rates: 97 % of its outputs after 10 steps
        # of Adam at 0.01 beside a Conformer and a stateless predictor, which then learnt little.
        self.from_hidden = nn.Sequential(nn.Linear(in_dim, d_joint), nn.LayerNorm(d_joint))
        self.from_labels = nn.Sequential(nn.Linear(self.predictor.out_dim, d_joint), nn.LayerNorm(d_joint))
        self.output = nn.Linear(d_joint, n_labels + 1)
        self.transducer_loss = transducer_loss
        self.auxiliary = auxiliary(in_dim=in_dim, n_labels=n_labels)
        self.terms: dict[str, Tensor] = {}

    def joined(self, frames: Tensor, said: Tensor) -> Tensor:
        """Encoder's and predictor's part, (..., d_joint) both, broadcast -> (..., V+1) float32 logits"""
        return self.output((frames + said).tanh()).float()

    def logits(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """(B,U,D), (B,L) -> (B,U,L+1,V+1) float32"""
        frames, said = self.from_hidden(self.dropout(hidden)), self.from_labels(self.predictor(labels))
        return self.joined(frames[:, :, None], said[:, None])

    def loss(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,U,D), (B,), (B,L), (B,) -> (B,) negative log-likelihood in nats, the weighted auxiliary loss added

        The joint layer (utterances x U x (L+1) x d_joint) is what costs memory and time. It is made for `n_together`
        utterances at once, each lot without the padding that others need; with `recompute` no more than one lot's
        is held.
        """
        frames, said = self.from_hidden(self.dropout(hidden)), self.from_labels(self.predictor(labels))
        lots = zip(*(t.split(self.n_together) for t in (frames, said, lens, labels, label_lens)), strict=True)
        if self.recompute and self.training:
            losses = [checkpoint(self._lot, *lot, use_reentrant=False) for lot in lots]
        else:
            losses = [self._lot(*lot) for lot in lots]
        loss = torch.cat(losses)  # pyright: ignore[reportArgumentType]
        beside = self.auxiliary(hidden, lens, labels, label_lens)
        if beside is None:
            return loss
        self.terms = {"transducer": loss.detach(), "auxiliary": beside.detach()}
        return loss + self.auxiliary.weight * beside

    def _lot(self, frames: Tensor, said: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        n_frames, n_labels = int(lens.max()), int(label_lens.max())
        logits = self.joined(frames[:, :n_frames, None], said[:, None, : n_labels + 1])
        return self.transducer_loss(logits, lens, labels[:, :n_labels], label_lens)

    def min_frames(self, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,L), (B,) -> (B,): 1; with an auxiliary CTC loss what that needs"""
        least = torch.ones_like(label_lens)
        return torch.maximum(least, self.auxiliary.min_frames(labels, label_lens))

    def posteriors(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Of the lattice's nodes, frame after frame: (B,U*(L+1),V+1) log-probabilities, (B,U*(L+1)) bool: valid"""
        log_probs = self.logits(hidden, labels).log_softmax(dim=-1)
        valid = valid_frames(lens, hidden.shape[1])[:, :, None]
        valid = valid & valid_frames(label_lens + 1, labels.shape[1] + 1)[:, None]
        return log_probs.flatten(1, 2), valid.flatten(1)

    @torch.no_grad()
    def align(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> list[list[Span]]:
        """The best alignment: a label begins at the frame that says it and ends where the next one is said, one frame
        later at the least; its score is the log-probability of being said there."""
        blank, label = arcs(self.logits(hidden, labels).log_softmax(dim=-1), labels)
        _, said = occupancies(forward(blank, label, lens, label_lens, best=True), best=True)
        at = said[:, :, :-1].argmax(dim=1)  # (B, L)
        scores = label.gather(1, at[:, None])[:, 0] if labels.shape[1] else at
        spans = []
        rows = zip(*(t.tolist() for t in (labels, at, scores, lens, label_lens)), strict=True)
        for ids, starts, values, n_frames, n in rows:
            ends = [max(start + 1, end) for start, end in zip(starts[:n], [*starts[1:n], n_frames], strict=False)]
            spans.append([Span(*span) for span in zip(ids[:n], starts[:n], ends, values[:n], strict=True)])
        return spans

    @torch.no_grad()
    def log_likelihoods(self, hidden: Tensor, lens: Tensor, n_best: list[list[list[int]]]) -> list[list[float]]:
        """log p(labels) of several label sequences for each utterance, all alignments summed.

        Sequences that begin alike share the joint layer as far as they do.
        """
        frames, device = self.from_hidden(hidden), hidden.device
        flat = [sequence for sequences in n_best for sequence in sequences]
        label_lens = torch.tensor([len(s) for s in flat], device=device)
        n_labels = int(label_lens.max())
        labels = torch.tensor([s + [0] * (n_labels - len(s)) for s in flat], dtype=torch.long, device=device)
        said = self.from_labels(self.predictor(labels))  # (H, L+1, d_joint)
        blank = frames.new_zeros(len(flat), frames.shape[1], n_labels + 1, dtype=torch.float32)
        label = torch.zeros_like(blank)
        first = 0
        for row, n, sequences in zip(frames, lens.tolist(), n_best, strict=True):
            some = slice(first, first + len(sequences))
            first += len(sequences)
            prefixes = Prefixes.of(sequences, n_labels)
            blank[some, :n], label[some, :n] = self._arcs_of(row[:n], said[some], labels[some], prefixes)
        n_alternatives = torch.tensor([len(s) for s in n_best], device=device)
        totals = forward(blank, label, lens.repeat_interleave(n_alternatives), label_lens, best=False).total
        return [part.tolist() for part in totals.split([len(s) for s in n_best])]

    def _arcs_of(self, frames: Tensor, said: Tensor, labels: Tensor, prefixes: "Prefixes") -> tuple[Tensor, Tensor]:
        """(U,d_joint), (H,L+1,d_joint), (H,L) -> (H,U,L+1) log-probabilities of the blank and of the next label"""
        ids = torch.tensor(prefixes.ids, device=frames.device)  # (H, L+1)
        said = said.flatten(0, 1)[torch.tensor(prefixes.first, device=frames.device)]  # (P, d_joint)
        after = ids * (self.blank + 1) + nn.functional.pad(labels, (0, 1))
        blank, label = [], []
        for some in frames.split(max(1, N_JOINT // said.numel())):
            log_probs = self.joined(some[:, None], said).log_softmax(dim=-1)  # (U, P, V+1)
            blank.append(log_probs[:, ids, self.blank])
            label.append(log_probs.flatten(1)[:, after])
        return torch.cat(blank).transpose(0, 1), torch.cat(label).transpose(0, 1)


class Prefixes(NamedTuple):
    """The distinct beginnings of several label sequences."""

    ids: list[list[int]]  # of each sequence's beginnings of 0, 1, ... labels; padded with 0
    first: list[int]  # for each beginning where it came first: row * (n_labels + 1) + length

    @classmethod
    def of(cls, sequences: list[list[int]], n_labels: int) -> "Prefixes":
        known: dict[tuple[int, int], int] = {}
        ids, first = [], [0]
        for row, sequence in enumerate(sequences):
            path = [0]
            for n, label in enumerate(sequence, start=1):
                key = (path[-1], label)
                if key not in known:
                    known[key] = len(first)
                    first.append(row * (n_labels + 1) + n)
                path.append(known[key])
            ids.append(path + [0] * (n_labels + 1 - len(path)))
        return cls(ids, first)
