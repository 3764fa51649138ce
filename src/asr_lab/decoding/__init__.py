"""Searches: from an encoder's frames to label sequences, with a decoder's model and, if wished, a language model.

A search is built with the `decoder`, the `lm` (asr_lab.lm.Fusion or NoFusion), the `tokenizer` and the `train_texts`
(an iterable of normalised transcripts, read only if iterated) — those of them that its signature names — and with the
plain values of its YAML. `beam=1` is greedy. A beam's best is never worse, under the search's own score, than greedy's.
"""

from typing import Any, Protocol

from torch import Tensor

from asr_lab.types import Hypothesis


class Search(Protocol):
    """Not a `nn.Module`: it holds no weights of its own, and is never saved."""

    def __call__(self, hidden: Tensor, lens: Tensor) -> list[list[Hypothesis]]:
        """(B,U,D), (B,) -> for each utterance its hypotheses, the best first, at least one; what stands in the padding
        and who else is in the batch never matters."""
        ...

    def force(self, hidden: Tensor, lens: Tensor, sequences: list[list[int]]) -> list[float]:
        """The search's own score of one given label sequence for each utterance; what `__call__` with a beam of 2 or
        more gives as the score of each of its hypotheses."""
        ...


class Scorer(Protocol):
    """Predicts the next label of N hypotheses side by side; the label V (one above the tokenizer's) ends a sentence.

    States are opaque. Decoders begin with `begin(hidden, lens)`, language models with `begin(n, device)`.
    """

    def scores(self, state: Any) -> Tensor:
        """(N, V+1) float32 log-probabilities of what comes next"""
        ...

    def advance(self, state: Any, labels: Tensor) -> Any:
        """The state after one label (N,) each, in 0..V-1; the end is never advanced over."""
        ...

    def select(self, state: Any, rows: Tensor) -> Any:
        """The hypotheses `rows` (M,) of a state, in that order; a row may come several times or not at all."""
        ...


__all__ = ["Scorer", "Search"]
