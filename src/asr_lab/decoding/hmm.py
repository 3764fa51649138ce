"""Viterbi search of hidden Markov models through a grammar."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr_lab.decoding.grammar import NEVER, make_grammar
from asr_lab.decoding.tokens import Passing
from asr_lab.layers.hmm_chain import best_path, picked
from asr_lab.types import Hypothesis

MAX_STATES = 200_000  # all of them work in every frame: this is a search of small vocabularies


class HmmSearch:
    """The best hypotheses of a grammar, their score that of their best path.

    The search is exact: every state keeps its `beam` best hypotheses that differ in their words, and no state is
    pruned, so a wider beam finds more hypotheses and never a better one. A frame scores
    `acoustic_scale` (log p(s|x) - `prior_scale` log p(s)).
    """

    def __init__(
        self,
        decoder: Any,
        tokenizer: Any,
        train_texts: Iterable[str],
        beam: int,
        grammar: str,
        acoustic_scale: float,
        prior_scale: float,
        insertion_penalty: float,
        discount: float,
    ):
        if beam < 1:
            raise ValueError(f"beam is at least 1, {beam} came")
        if acoustic_scale <= 0 or prior_scale < 0:
            raise ValueError(f"acoustic_scale > 0 and prior_scale >= 0, {acoustic_scale} and {prior_scale} came")
        self.decoder, self.tokenizer, self.beam, self.kind = decoder, tokenizer, beam, grammar
        self.acoustic_scale, self.prior_scale = acoustic_scale, prior_scale
        self.grammar = make_grammar(grammar, tokenizer, train_texts, insertion_penalty, discount)
        self.numbers = {tuple(spelling): i for i, spelling in enumerate(self.grammar.spellings)}
        n_states = decoder.n_states * sum(len(s) + len(self.grammar.join) for s in self.grammar.spellings)
        if n_states > MAX_STATES:
            raise ValueError(
                f"grammar={grammar} has {len(self.numbers)} entries and {n_states} states, this search at most "
                f"{MAX_STATES}; choose grammar=free"
            )

    @torch.no_grad()
    def __call__(self, hidden: Tensor, lens: Tensor) -> list[list[Hypothesis]]:
        scores = self._scores(hidden)
        found = Passing(self.decoder, self.grammar, self.beam, hidden.device)(scores, lens)
        best = [[(self._spelled(entries), score) for entries, score in row] for row in found]
        rows = torch.tensor([i for i, row in enumerate(best) for _ in row], dtype=torch.long, device=hidden.device)
        times = iter(self._times(scores[rows], lens[rows], [labels for row in best for labels, _ in row]))
        # An utterance too short for anything that the grammar allows.
        nothing = [Hypothesis([], NEVER, [])]
        return [[Hypothesis(labels, score, next(times)) for labels, score in row] or nothing for row in best]

    @torch.no_grad()
    def force(self, hidden: Tensor, lens: Tensor, sequences: list[list[int]]) -> list[float]:
        """The grammar's weight of the labels and the score of their best path; -inf where the grammar forbids them"""
        entries = [self._entries(labels) for labels in sequences]
        weights = [self.grammar.weight(row) for row in entries]
        spelled = [labels if row else [0] for labels, row in zip(sequences, entries, strict=True)]
        paths, *_ = self._best_paths(self._scores(hidden), lens, spelled)
        return [w + s for w, s in zip(weights, paths.tolist(), strict=True)]

    def _scores(self, hidden: Tensor) -> Tensor:
        return self.acoustic_scale * self.decoder.scaled(self.decoder.log_probs(hidden), self.prior_scale)

    def _spelled(self, entries: list[int]) -> list[int]:
        g = self.grammar
        return [label for e in entries for label in (*g.join, *g.spellings[e])][len(g.join) :]

    def _entries(self, labels: list[int]) -> list[int]:
        """What the labels are made of; nothing where the grammar does not know them."""
        if self.kind == "free":
            return list(labels)
        if self.kind == "sentence":
            pieces = [tuple(labels)]
        else:
            try:
                pieces = [tuple(self.tokenizer.encode(w)) for w in self.tokenizer.decode(labels).split()]
            except ValueError:  # what the labels say is no word
                return []
        known = [self.numbers.get(piece, -1) for piece in pieces]
        return known if -1 not in known and self._spelled(known) == list(labels) else []

    def _best_paths(self, scores: Tensor, lens: Tensor, sequences: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """(B,U,K) -> scores (B,), positions (B,U) and numbers of labels (B,)"""
        labels = pad_sequence([torch.tensor(s, dtype=torch.long) for s in sequences], True).to(scores.device)
        label_lens = torch.tensor([len(s) for s in sequences], device=scores.device)
        chain = self.decoder.chain(labels, label_lens)
        return *best_path(picked(scores, chain), chain, lens), label_lens

    def _times(self, scores: Tensor, lens: Tensor, sequences: list[list[int]]) -> list[list[int]]:
        """The frame at which each label begins."""
        if not sequences:
            return []
        _, path, label_lens = self._best_paths(scores, lens, sequences)
        starts = self.decoder.bounds(path, lens, label_lens)[0].tolist()
        return [row[:n] for row, n in zip(starts, label_lens.tolist(), strict=True)]
