"""A language model beside a search: shallow fusion (Gulcehre et al. 2015) while it runs, or rescoring of its n-best."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from asr_lab.types import Hypothesis


class LanguageModel(Protocol):
    """`Scorer` of asr_lab.decoding, beginning from nothing."""

    def begin(self, n: int, device: torch.device) -> Any: ...
    def scores(self, state: Any) -> Tensor: ...
    def advance(self, state: Any, labels: Tensor) -> Any: ...
    def select(self, state: Any, rows: Tensor) -> Any: ...


class NoFusion:
    """No language model."""

    in_search = rescores = False
    weight = bonus = 0.0

    def rescored(self, hypotheses: list[Hypothesis]) -> list[Hypothesis]:
        return hypotheses


class Fusion:
    """Adds `weight` log p(labels) + `bonus` n_labels to a search's score, p in nats, the end of the sentence included.

    A `Scorer` itself: `scores` are weighted already, with the bonus on every label but the end.
    """

    def __init__(
        self, tokenizer: Any, train_texts: Iterable[str], model: Callable, weight: float, bonus: float, use: str
    ):
        if use not in ("fusion", "rescoring"):
            raise ValueError(f"lm.use={use}; choose from: fusion (in the search), rescoring (of its n-best)")
        if weight < 0:
            raise ValueError(f"lm.weight must not be negative, {weight} came")
        given = {"tokenizer": tokenizer, "train_texts": train_texts}
        wanted = inspect.signature(model).parameters
        self.model: LanguageModel = model(**{k: v for k, v in given.items() if k in wanted})
        if hasattr(self.model, "replaced"):  # a state of its own kind knows how to be put together from two
            self.replaced = self.model.replaced  # pyright: ignore[reportAttributeAccessIssue]
        self.weight, self.bonus = weight, bonus
        changes = weight != 0 or bonus != 0
        self.in_search = changes and use == "fusion"
        self.rescores = changes and use == "rescoring"

    def begin(self, n: int, device: torch.device) -> Any:
        return self.model.begin(n, device)

    def scores(self, state: Any) -> Tensor:
        """(N, V+1), weighted"""
        scores = self.model.scores(state)
        # A weight of 0 beside impossible labels (-inf) must not make NaN.
        scores = scores * self.weight if self.weight else torch.zeros_like(scores)
        scores[:, :-1] += self.bonus
        return scores

    def advance(self, state: Any, labels: Tensor) -> Any:
        return self.model.advance(state, labels)

    def select(self, state: Any, rows: Tensor) -> Any:
        return self.model.select(state, rows)

    @torch.no_grad()
    def total(self, sequences: list[list[int]], device: torch.device) -> Tensor:
        """(N,): the weighted score of whole label sequences, ends included."""
        n, longest = len(sequences), max(map(len, sequences))
        padded = torch.zeros(n, longest, dtype=torch.long, device=device)
        lens = torch.tensor([len(s) for s in sequences], device=device)
        flat = torch.tensor([label for labels in sequences for label in labels], dtype=torch.long, device=device)
        padded[torch.arange(longest, device=device) < lens[:, None]] = flat
        state, total = self.begin(n, device), torch.zeros(n, device=device)
        for i in range(longest + 1):
            scores = self.scores(state)
            inside = padded[:, min(i, longest - 1)] if longest else lens
            chosen = torch.where(i < lens, inside, scores.shape[1] - 1)
            total += scores.gather(1, chosen[:, None])[:, 0].masked_fill(i > lens, 0)
            if i < longest:
                state = self.advance(state, inside)
        return total

    def rescored(self, hypotheses: list[Hypothesis]) -> list[Hypothesis]:
        """One utterance's n-best with this model's score added, in their new order."""
        if not self.rescores:
            return hypotheses
        totals = self.total([h.labels for h in hypotheses], torch.device("cpu")).tolist()
        changed = [h._replace(score=h.score + t) for h, t in zip(hypotheses, totals, strict=True)]
        return sorted(changed, key=lambda h: -h.score)
