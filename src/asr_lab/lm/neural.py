"""What neural language models share: one label after the other, taught as a whole and asked step by step."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from asr_lab.layers.dropout import Dropout

Memory = tuple[Tensor, ...]  # each (N, ...): what a model remembers of the labels so far


class LmState(NamedTuple):
    """N sentences that have begun, side by side; they need not be of one length."""

    scores: Tensor  # (N, V+1) float32 log-probabilities of what comes next
    memory: Memory


class NeuralLm(nn.Module):
    """p(label | labels before), and of the end of the sentence: the label V, which the sentence begins with, too.

    A `Scorer` of asr_lab.decoding; `forward` gives the same numbers for whole sentences. The output layer shares its
    weights with the embedding (Press & Wolf 2017). A subclass writes `hidden`, `nothing` and `step`.
    """

    def __init__(self, n_labels: int, d_embedding: int, dropout: float):
        super().__init__()
        self.n_labels = n_labels
        self.embedding = nn.Embedding(n_labels + 1, d_embedding)
        # As an output layer it wants small rows; as an input they are scaled up again (Vaswani et al. 2017, 3.4).
        nn.init.normal_(self.embedding.weight, std=d_embedding**-0.5)
        self.output_bias = nn.Parameter(torch.zeros(n_labels + 1))
        self.dropout = Dropout(dropout)

    def hidden(self, x: Tensor) -> Tensor:
        """(B,L,d_embedding) -> (B,L,d_embedding); an output sees its own input and those before"""
        raise NotImplementedError

    def nothing(self, n: int, device: torch.device) -> Memory:
        """The memory of n sentences before anything was said."""
        raise NotImplementedError

    def step(self, x: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """(N,d_embedding), what came before -> (N,d_embedding) as `hidden` gives it, and the memory with x in it"""
        raise NotImplementedError

    def forward(self, labels: Tensor) -> Tensor:
        """(B,L) -> (B,L+1,V+1) log-probabilities of each label and of the end, in float32 whatever the autocast"""
        before = pad(labels, (1, 0), value=self.n_labels)
        return self._log_probs(self.hidden(self._embedded(before)))

    def loss(self, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,L), (B,) -> (B,): -log p(labels and the end) in nats"""
        places = torch.arange(labels.shape[1] + 1, device=labels.device)
        said = torch.where(places == label_lens[:, None], self.n_labels, pad(labels, (0, 1)))
        nats = -self(labels).gather(2, said[:, :, None])[:, :, 0]
        return nats.masked_fill(places > label_lens[:, None], 0).sum(dim=1)

    def begin(self, n: int, device: torch.device) -> LmState:
        """n sentences before their first label. The model moves to `device`."""
        self.to(device)
        boundary = torch.full((n,), self.n_labels, device=device)
        return self._after(boundary, self.nothing(n, device))

    def scores(self, state: LmState) -> Tensor:
        """(N, V+1) float32 log-probabilities of what comes next"""
        return state.scores

    def advance(self, state: LmState, labels: Tensor) -> LmState:
        """The state after one label (N,) each"""
        return self._after(labels, state.memory)

    def select(self, state: LmState, rows: Tensor) -> LmState:
        """The sentences `rows` (M,), in that order"""
        return LmState(state.scores[rows], tuple(m[rows] for m in state.memory))

    def replaced(self, state: LmState, part: LmState, rows: Tensor) -> LmState:
        """`state` with the sentences of `part` in the places `rows` (M,), for a search in which only some grow."""
        memory = tuple(_put(m, p, rows) for m, p in zip(state.memory, part.memory, strict=True))
        return LmState(_put(state.scores, part.scores, rows), memory)

    def _after(self, labels: Tensor, memory: Memory) -> LmState:
        hidden, memory = self.step(self._embedded(labels), memory)
        return LmState(self._log_probs(hidden), memory)

    def _embedded(self, labels: Tensor) -> Tensor:
        return self.dropout(self.embedding(labels) * self.embedding.embedding_dim**0.5)

    def _log_probs(self, hidden: Tensor) -> Tensor:
        scores = linear(self.dropout(hidden), self.embedding.weight, self.output_bias)
        return scores.float().log_softmax(dim=-1)


def _put(whole: Tensor, part: Tensor, rows: Tensor) -> Tensor:
    """(N,...), (M,...), (M,) -> (N,...): where one of them has more keys, the other gets zeros behind its own"""
    sizes = [max(pair) for pair in zip(whole.shape[1:], part.shape[1:], strict=True)]
    whole, part = (
        pad(t, [n for size, has in zip(sizes[::-1], t.shape[:0:-1], strict=True) for n in (0, size - has)])
        for t in (whole, part)
    )
    return whole.index_copy(0, rows, part.to(whole.dtype))
