"""Word, character and sentence error rates of a corpus; edits are counted by jiwer."""

from typing import Any

import jiwer
import torch
from torch import Tensor
from torchmetrics import Metric


class ErrorRates(Metric):
    """Corpus WER and CER of one split: (sum of edits) / (sum of reference words or characters), never the mean of
    sentence rates. SER: the share of utterances with any error; of isolated words, 1 - SER is the accuracy.

    The state is summed over processes; who computes also resets.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("word_edits", "words", "char_edits", "chars", "wrong", "utterances"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.word_edits: Tensor
        self.words: Tensor
        self.char_edits: Tensor
        self.chars: Tensor
        self.wrong: Tensor
        self.utterances: Tensor

    def update(self, rows: list[dict[str, Any]]) -> None:
        """Add utterances, counted by `utterance_errors`."""
        for row in rows:
            self.word_edits += row["sub"] + row["del"] + row["ins"]
            self.words += row["words"]
            self.char_edits += row["char_errors"]
            self.chars += row["chars"]
            # Words alone would count a mistake of layout where spaces are none (score cer).
            self.wrong += row["char_errors"] > 0
            self.utterances += 1

    def compute(self) -> dict[str, Tensor]:
        """{"wer": (), "cer": (), "ser": ()} as fractions; the first two above 1 when there are more insertions than
        words"""
        return {
            "wer": (self.word_edits / self.words).float(),
            "cer": (self.char_edits / self.chars).float(),
            "ser": (self.wrong / self.utterances).float(),
        }


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
