"""Token passing (Young et al. 1989): the best paths through the states of a grammar, for a batch at once."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from asr_lab.decoding.grammar import NEVER, Grammar

MIX = 6364136223846793005  # an odd factor, so that histories of words spread over all 64 bits


class Tokens(NamedTuple):
    """The K best partial hypotheses at each of N places."""

    score: Tensor  # (B, N, K)
    history: Tensor  # (B, N, K) int64, a hash of the entries that are complete
    link: Tensor  # (B, N, K) int64, where the last of them ended; -1: none did

    def at(self, places: Tensor | slice) -> "Tokens":
        return Tokens(*(t[:, places] for t in self))

    def plus(self, weight: Tensor | float) -> "Tokens":
        """`weight` (N,1), or one for all, added to the scores."""
        return self._replace(score=self.score + weight)


class Passing:
    """The states of all entries side by side, and tokens that pass through them frame by frame.

    Places are: the states of entry 0, those of the labels that join it to the next, entry 1, and so on; silence at the
    start; silence at the end.
    """

    def __init__(self, decoder: Any, grammar: Grammar, beam: int, device: torch.device):
        self.grammar = grammar.to(device)
        self.beam, self.device, self.decoder = beam, device, decoder
        n, join = decoder.n_states, grammar.join
        rows = [[*spelling, *join] for spelling in grammar.spellings]
        labels = torch.tensor([label for row in rows for label in row], device=device)
        inner = (labels[:, None] * n + torch.arange(n, device=device)).flatten()
        silence = decoder.silence if decoder.has_silence else 0
        self.states = pad(inner, (0, 2), value=silence)
        sizes = torch.tensor([n * len(row) for row in rows], device=device)
        self.first = sizes.cumsum(0) - sizes
        self.out = self.first + sizes - 1  # from where the next entry is come to
        self.last = self.out - n * len(join)  # where the entry itself ends
        self.opening, self.closing = len(self.states) - 2, len(self.states) - 1
        loop, leave = (weights[self.states][:, None] for weights in decoder.transitions())  # (N, 1)
        self.loop, self.leave = loop, leave
        # Of coming from the place before; into an entry, and behind it, hypotheses change, and other rules hold.
        self.enter = pad(leave[:-1], (0, 0, 1, 0), value=NEVER)
        self.enter[self.first] = self.enter[self.opening] = self.enter[self.closing] = NEVER
        if join:
            self.enter[self.last + 1] = NEVER
        g = torch.Generator().manual_seed(0)
        self.marks = torch.randint(-(2**62), 2**62, (len(rows), 1), generator=g).to(device)

    def __call__(self, scores: Tensor, lens: Tensor) -> list[list[tuple[list[int], float]]]:
        """(B,U,K) -> for each utterance at most `beam` (entries, score), the best first"""
        ends = lens.tolist()
        trace, found = [], [[] for _ in ends]
        tokens = self._begin(len(ends)).plus(scores[:, 0, self.states, None])
        for t in range(max(ends)):
            trace.append(tokens.link[:, self.last])
            ended = self._ended(tokens, t)
            for i in (i for i, n in enumerate(ends) if n == t + 1):
                last = self._finish(tokens, ended, i)
                found[i] = [(s, link) for s, link in zip(*(x.tolist() for x in last), strict=True) if s > NEVER]
            if t + 1 < max(ends):
                tokens = self._step(tokens, ended).plus(scores[:, t + 1, self.states, None])
        links = torch.stack(trace).cpu().numpy()
        return [[(self._follow(link, links[:, i]), s) for s, link in row] for i, row in enumerate(found)]

    def _begin(self, n: int) -> Tokens:
        score = torch.full((n, len(self.states), self.beam), NEVER, device=self.device)
        score[:, self.first, 0] = self.grammar.start + self.decoder.log_choice
        if self.decoder.has_silence:
            score[:, self.opening, 0] = self.decoder.log_choice
        history = torch.zeros_like(score, dtype=torch.long)
        return Tokens(score, history, history - 1)

    def _ended(self, tokens: Tokens, t: int) -> Tokens:
        """(B,W,K): what is at the end of an entry after frame t, the entry now a part of its history."""
        score, history, _ = tokens.at(self.last).plus(self.leave[self.last])
        n = len(self.last) * self.beam
        links = torch.arange(t * n, (t + 1) * n, device=self.device).view(1, -1, self.beam)
        return Tokens(score, history * MIX + self.marks, links.expand_as(history))

    def _step(self, tokens: Tokens, ended: Tokens) -> Tokens:
        """Where everything may be a frame later."""
        came = Tokens(*(pad(t[:, :-1], (0, 0, 1, 0)) for t in tokens)).plus(self.enter)
        if self.grammar.join:
            going = tokens.at(self.out).plus(self.leave[self.out])
            self._put(came, self.last + 1, ended)
        else:
            going = ended
        self._put(came, self.first, self._arrivals(tokens, going))
        if self.decoder.has_silence:
            closing = self._best(ended.plus(self.grammar.end[:, None] + self.decoder.log_choice))
            self._put(came, slice(self.closing, None), closing)
        return self._better(tokens.plus(self.loop), came)

    def _arrivals(self, tokens: Tokens, going: Tokens) -> Tokens:
        """(B,W,K): what comes to the first state of each entry."""
        g, opening = self.grammar, slice(self.opening, self.opening + 1)
        start = tokens.at(opening).plus(self.leave[opening])
        coming = Tokens(*(t.expand(-1, len(g.start), -1) for t in start)).plus(g.start[:, None])
        hub = self._best(going.plus(g.leave[:, None]))
        anyway = Tokens(*(t.expand(-1, len(g.start), -1) for t in hub)).plus(g.anyway[:, None])
        coming = self._better(coming, anyway)
        if g.arcs.shape[1]:
            own = Tokens(*(t[:, g.before] for t in going)).plus(g.arcs[:, :, None])  # (B, W, M, K)
            coming = self._better(coming, self._top(Tokens(*(t.flatten(2) for t in own))))
        return coming

    def _finish(self, tokens: Tokens, ended: Tokens, i: int) -> tuple[Tensor, Tensor]:
        """(K,), (K,): scores and links of utterance i if it is over."""
        row = slice(i, i + 1)
        now = Tokens(*(t[row] for t in ended)).plus(self.grammar.end[:, None] + self.decoder.log_choice)
        closing = Tokens(*(t[row] for t in tokens.at(slice(self.closing, None)))).plus(self.leave[self.closing])
        last = self._better(self._best(now), closing)
        return last.score[0, 0], last.link[0, 0]

    def _follow(self, link: int, links: np.ndarray) -> list[int]:
        """The entries of a hypothesis, back from where its last one ended; `links` (T,W,K)."""
        entries = []
        while link >= 0:
            t, place = divmod(link, len(self.last) * self.beam)
            entry, k = divmod(place, self.beam)
            entries.append(entry)
            link = int(links[t, entry, k])
        return entries[::-1]

    def _best(self, tokens: Tokens) -> Tokens:
        """(B,N,K) -> (B,1,K), the best of all places; their hypotheses differ"""
        return self._top(Tokens(*(t.flatten(1)[:, None] for t in tokens)))

    def _top(self, tokens: Tokens) -> Tokens:
        """(B,N,X) -> (B,N,K)"""
        score, chosen = tokens.score.topk(min(self.beam, tokens.score.shape[2]), dim=2)
        missing = self.beam - score.shape[2]
        found = Tokens(score, tokens.history.gather(2, chosen), tokens.link.gather(2, chosen))
        return Tokens(*(pad(t, (0, missing), value=v) for t, v in zip(found, (NEVER, 0, -1), strict=True)))

    def _better(self, a: Tokens, b: Tokens) -> Tokens:
        """The K best of two lists for each place; a hypothesis that is in both is taken once."""
        if self.beam == 1:
            first = a.score >= b.score
            return Tokens(*(torch.where(first, x, y) for x, y in zip(a, b, strict=True)))
        same = a.history[..., :, None] == b.history[..., None, :]  # (B, N, K, K)
        first = a.score[..., :, None] >= b.score[..., None, :]
        a = a._replace(score=a.score.masked_fill((same & ~first).any(dim=-1), NEVER))
        b = b._replace(score=b.score.masked_fill((same & first).any(dim=-2), NEVER))
        return self._top(Tokens(*(torch.cat([x, y], dim=2) for x, y in zip(a, b, strict=True))))

    @staticmethod
    def _put(tokens: Tokens, places: Tensor | slice, new: Tokens) -> None:
        for old, t in zip(tokens, new, strict=True):
            old[:, places] = t
