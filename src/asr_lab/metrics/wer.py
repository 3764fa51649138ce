"""Word and character error rates of a corpus: edits over reference length, counted by jiwer."""

from typing import Any

import jiwer
import torch
from torch import Tensor
from torchmetrics import Metric


class ErrorRates(Metric):
    """Corpus WER and CER of one split: (sum of edits) / (sum of reference words or characters).

    Never the mean of sentence rates. The state is summed over processes; who computes also resets.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("word_edits", "words", "char_edits", "chars"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.word_edits: Tensor
        self.words: Tensor
        self.char_edits: Tensor
        self.chars: Tensor

    def update(self, rows: list[dict[str, Any]]) -> None:
        """Add utterances, counted by `utterance_errors`."""
        for row in rows:
            self.word_edits += row["sub"] + row["del"] + row["ins"]
            self.words += row["words"]
            self.char_edits += row["char_errors"]
            self.chars += row["chars"]

    def compute(self) -> dict[str, Tensor]:
        """{"wer": (), "cer": ()} as fractions; above 1 when there are more insertions than words"""
        return {"wer": (self.word_edits / self.words).float(), "cer": (self.char_edits / self.chars).float()}


def utterance_errors(ref: str, hyp: str, score: str = "wer") -> dict[str, int]:
    """Substitutions, deletions, insertions and reference words; edits and reference characters.

    Whatever stands between words counts as one space. With `score` wer, spaces are characters (as jiwer and the NIST
    tools count); with cer they are none, for there a space is a matter of layout.

    Raises:
        ValueError: the reference is empty (no rate exists).
    """
    ref, hyp = " ".join(ref.split()), " ".join(hyp.split())
    words = jiwer.process_words(ref, hyp)
    chars = jiwer.process_characters(*((ref, hyp) if score == "wer" else (ref.replace(" ", ""), hyp.replace(" ", ""))))
    return {
        "sub": words.substitutions,
        "del": words.deletions,
        "ins": words.insertions,
        "words": words.hits + words.substitutions + words.deletions,
        "char_errors": chars.substitutions + chars.deletions + chars.insertions,
        "chars": chars.hits + chars.substitutions + chars.deletions,
    }
