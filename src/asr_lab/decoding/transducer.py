"""Searches for transducers: greedy, whole or piece by piece, and a time-synchronous beam."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from asr_lab.decoding.lm_pieces import LmPieces
from asr_lab.types import Hypothesis

# Frames that greedy search looks at together with one predictor output; the first label among them is taken.
N_AHEAD = 8
HASH = 6364136223846793005  # odd: hash of labels = sum of label * HASH^position, in int64 with wrap-around

State = tuple[Tensor, ...]  # one row a hypothesis: what the labels give to the joint layer, and what it takes to go on


class TransducerSearch:
    """`beam=1`: at each frame the best of blank and labels, until it is the blank or `max_symbols` labels are said.

    `beam` > 1: time-synchronous beam search (described by Saon et al. 2020, "Alignment-length synchronous decoding for
    RNN transducer"). Equal label sequences are merged by adding their probabilities, and with `max_symbols=1` a frame
    says one label at the most, as in the modified beam search of Kang et al. 2023 ("Fast and parallel decoding for
    transducer"). A language model scores labels, never blanks. At the end the n-best and greedy's labels are scored
    anew, over all alignments.
    """

    def __init__(self, decoder: Any, lm: Any, beam: int, max_symbols: int):
        if beam < 1 or max_symbols < 1:
            raise ValueError(f"beam and max_symbols must be at least 1, {beam} and {max_symbols} came")
        if not hasattr(decoder, "predictor"):
            raise ValueError(f"this search is for decoder=transducer, not for {type(decoder).__name__}")
        self.decoder, self.lm, self.beam, self.max_symbols = decoder, lm, beam, max_symbols

    def stream(self, n: int) -> "TransducerStream":
        """A greedy search of n utterances whose frames come piece by piece."""
        return TransducerStream(self.decoder, self.max_symbols, n)

    @torch.no_grad()
    def __call__(self, hidden: Tensor, lens: Tensor) -> list[list[Hypothesis]]:
        greedy = self.stream(len(lens))(hidden, lens)
        if self.beam == 1 and not self.lm.in_search:
            return [[h] for h in greedy]
        found = BeamSearch(self.decoder, self.lm, self.beam, self.max_symbols, hidden)(lens)
        for candidates, h in zip(found, greedy, strict=True):
            candidates.setdefault(tuple(h.labels), h.frames or [])
        scores = self._exact(hidden, lens, [[list(labels) for labels in candidates] for candidates in found])
        n_best = []
        for candidates, row in zip(found, scores, strict=True):
            hypotheses = [Hypothesis(list(k), s, f) for (k, f), s in zip(candidates.items(), row, strict=True)]
            n_best.append(sorted(hypotheses, key=lambda h: -h.score)[: self.beam])
        return n_best

    def force(self, hidden: Tensor, lens: Tensor, sequences: list[list[int]]) -> list[float]:
        """log p(labels) over all alignments, with the language model's share where it is part of the search"""
        return [row[0] for row in self._exact(hidden, lens, [[s] for s in sequences])]

    def _exact(self, hidden: Tensor, lens: Tensor, n_best: list[list[list[int]]]) -> list[list[float]]:
        scores = self.decoder.log_likelihoods(hidden, lens, n_best)
        if not self.lm.in_search:
            return scores
        share = iter(self.lm.total([s for sequences in n_best for s in sequences], hidden.device).tolist())
        return [[score + next(share) for score in row] for row in scores]


class TransducerStream:
    """Greedy search; what it gives for the pieces of an utterance is what it gives for the whole.

    Each utterance goes on at its own pace: a step looks for its first label within the next frames, which leaves as
    many steps as there are labels, and one for every N_AHEAD frames.
    """

    def __init__(self, decoder: Any, max_symbols: int, n: int):
        self.decoder, self.max_symbols, self.n = decoder, max_symbols, n
        self.state: State | None = None
        self.n_seen = 0

    @torch.no_grad()
    def __call__(self, hidden: Tensor, lens: Tensor) -> list[Hypothesis]:
        """The next frames (n,U,D), (n,) -> what is said in them; `frames` are counted from the very first.

        An utterance that ends with this piece is no longer asked about.
        """
        decoder, frames, device = self.decoder, self.decoder.from_hidden(hidden), hidden.device
        if self.state is None:
            self.state = begin(decoder, self.n, device)
        state = self.state
        rows, ahead = torch.arange(self.n, device=device), torch.arange(N_AHEAD, device=device)
        now, n_here, total = torch.zeros_like(lens), torch.zeros_like(lens), torch.zeros(self.n, device=device)
        said = []
        while (now < lens).any():
            at = now[:, None] + ahead
            some = frames[rows[:, None], at.clamp(max=hidden.shape[1] - 1)]
            log_probs = decoder.joined(some, state[0][:, None]).log_softmax(dim=-1)  # (n, N_AHEAD, V+1)
            # A frame that has said enough is left with a blank, whatever it wants to say.
            log_probs[:, 0, :-1].masked_fill_((n_here == self.max_symbols)[:, None], -torch.inf)
            best, label = log_probs.max(dim=-1)
            quiet = ((label == decoder.blank) & (at < lens[:, None])).long().cumprod(dim=1)
            n_quiet = quiet.sum(dim=1)
            now, n_here = now + n_quiet, n_here.masked_fill(n_quiet > 0, 0)
            says = (n_quiet < N_AHEAD) & (now < lens)
            first = n_quiet.clamp(max=N_AHEAD - 1)
            total += (best * quiet).sum(dim=1) + best[rows, first].masked_fill(~says, 0)
            n_here += says
            if len(who := says.nonzero()[:, 0]):
                labels = label[who, first[who]]
                said.append(torch.stack([who, labels, now[who] + self.n_seen]))
                after = advance(decoder, select(state, who), labels)
                state = tuple(s.index_copy(0, who, a) for s, a in zip(state, after, strict=True))
        self.state, self.n_seen = state, self.n_seen + hidden.shape[1]
        found = [Hypothesis([], score, []) for score in total.tolist()]
        for i, label, frame in torch.cat(said, dim=1).t().tolist() if said else []:
            found[i].labels.append(label)
            found[i].frames.append(frame)  # pyright: ignore[reportOptionalMemberAccess]
        return found


class Beams(NamedTuple):
    """K hypotheses of each utterance, (B,K) each."""

    score: Tensor  # -inf: none
    hashed: Tensor  # int64, equal for equal labels
    tail: Tensor  # the last label's place in the history; -1: no label
    row: Tensor  # in the state


class BeamSearch:
    """One batch's search. The state has a row for each hypothesis of each utterance, language model included."""

    def __init__(self, decoder: Any, lm: Any, beam: int, max_symbols: int, hidden: Tensor):
        self.decoder, self.beam, self.max_symbols = decoder, beam, max_symbols
        self.frames, self.n, self.device = decoder.from_hidden(hidden), len(hidden), hidden.device
        self.memory = LmPieces(lm, hidden.device) if lm.in_search else None
        self.history: list[Tensor] = []  # (3, M) each: place of the label before, label, frame
        self.n_history = 0

    def __call__(self, lens: Tensor) -> list[dict[tuple[int, ...], list[int]]]:
        """(B,) -> for each utterance its {labels: frames}"""
        n_rows = self.n * self.beam
        self.state = begin(self.decoder, n_rows, self.device)
        if self.memory:
            self.state = (self.state[0], *self.memory.begin(n_rows), *self.state[1:])
        row = torch.arange(n_rows, device=self.device).view(self.n, self.beam)
        score = torch.full(row.shape, -torch.inf, device=self.device)
        score[:, 0] = 0
        beams = Beams(score, torch.zeros_like(row), torch.full_like(row, -1), row)
        for t in range(int(lens.max())):
            beams = self._frame(beams, t, t < lens)
        return self._traced(beams)

    def _frame(self, beams: Beams, t: int, active: Tensor) -> Beams:
        """The beam after frame t; what has ended stays as it is."""
        log_probs = self._log_probs(self.frames[:, t, None], beams.row)
        blank, label = log_probs[..., -1], self._with_lm(log_probs[..., :-1], beams.row)
        pool = [beams._replace(score=beams.score + blank.masked_fill(~active[:, None], 0))]
        label = label.masked_fill(~active[:, None, None], -torch.inf)
        for _ in range(self.max_symbols):
            score, place = (beams.score[:, :, None] + label).flatten(1).topk(self.beam)
            # What is worse than the beam already holds cannot get into it: its blank is still to be paid for.
            worst = torch.cat([p.score for p in pool], dim=1).topk(self.beam).values[:, -1:]
            live = score > worst
            if not live.any():
                break
            beams, of = self._said(beams, score, place, live, t), live.nonzero()[:, 0]
            log_probs = self._log_probs(self.frames[of, t], beams.row[live])
            blank = torch.zeros_like(score).masked_scatter(live, log_probs[:, -1])
            pool.append(beams._replace(score=beams.score + blank))
            label = torch.full_like(label, -torch.inf)
            label[live] = self._with_lm(log_probs[:, :-1], beams.row[live])
        return pool[0] if len(pool) == 1 else self._best(pool)

    def _said(self, beams: Beams, score: Tensor, place: Tensor, live: Tensor, t: int) -> Beams:
        """Hypotheses with one label more: `place` (B,K) = parent * V + label, of which those that are `live` matter."""
        parent, label = place // self.decoder.blank, place % self.decoder.blank
        tail, labels = beams.tail.gather(1, parent)[live], label[live]
        self.history.append(torch.stack([tail, labels, torch.full_like(tail, t)]))
        new = torch.arange(len(labels), device=self.device)
        row, new_tail = torch.zeros_like(place), torch.full_like(place, -1)
        row[live], new_tail[live] = new + len(self.state[0]), new + self.n_history
        self.n_history += len(labels)
        before = select(self.state, beams.row.gather(1, parent)[live])
        if self.memory:
            said, _, piece, at, *rest = before
            after = advance(self.decoder, (said, *rest), labels)
            after = (after[0], *self.memory.advance(piece, at, labels), *after[1:])
        else:
            after = advance(self.decoder, before, labels)
        self.state = tuple(torch.cat(pair) for pair in zip(self.state, after, strict=True))
        hashed = beams.hashed.gather(1, parent) * HASH + label + 1
        return Beams(score.masked_fill(~live, -torch.inf), hashed, new_tail, row)

    def _best(self, pool: list[Beams]) -> Beams:
        """The best of all, equal labels made one."""
        score, hashed, tail, row = (torch.cat(parts, dim=1) for parts in zip(*pool, strict=True))
        equal = hashed[:, :, None] == hashed[:, None]
        place = torch.arange(score.shape[1], device=self.device)
        mine, other = score[:, :, None], score[:, None]
        better = (other > mine) | ((other == mine) & (place < place[:, None]))
        merged = other.expand_as(equal).masked_fill(~equal, -torch.inf).logsumexp(dim=2)
        merged = merged.masked_fill((equal & better).any(dim=2), -torch.inf)
        score, chosen = merged.topk(self.beam)
        hashed, tail, row = (x.gather(1, chosen) for x in (hashed, tail, row))
        self.state = select(self.state, row.flatten())
        if self.memory:
            self.memory.keep(self.state[2][score.flatten() > -torch.inf])
        return Beams(score, hashed, tail, torch.arange(row.numel(), device=self.device).view_as(row))

    def _log_probs(self, frames: Tensor, row: Tensor) -> Tensor:
        return self.decoder.joined(frames, self.state[0][row]).log_softmax(dim=-1)

    def _with_lm(self, label: Tensor, row: Tensor) -> Tensor:
        return label + self.state[1][row][..., :-1] if self.memory else label

    def _traced(self, beams: Beams) -> list[dict[tuple[int, ...], list[int]]]:
        said = torch.cat(self.history, dim=1).t().tolist() if self.history else []
        found = []
        for scores, tails in zip(beams.score.tolist(), beams.tail.tolist(), strict=True):
            rows = {}
            for last in (tail for tail, score in zip(tails, scores, strict=True) if score > -torch.inf):
                place, labels, frames = last, [], []
                while place >= 0:
                    place, label, frame = said[place]
                    labels.append(label)
                    frames.append(frame)
                rows[tuple(labels[::-1])] = frames[::-1]
            found.append(rows)
        return found


def begin(decoder: Any, n: int, device: torch.device) -> State:
    state = decoder.predictor.begin(n, device)
    return decoder.from_labels(state[0]), *state


def advance(decoder: Any, state: State, labels: Tensor) -> State:
    after = decoder.predictor.advance(state[1:], labels)
    return decoder.from_labels(after[0]), *after


def select(state: State, rows: Tensor) -> State:
    return tuple(s[rows] for s in state)
