"""One label for a whole utterance (N-to-1): isolated words and spoken commands."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from asr_lab.errors import DataError
from asr_lab.layers.dropout import Dropout
from asr_lab.layers.readout import fit_to


class KeywordDecoder(nn.Module):
    """A read-out of the frames (asr_lab.layers.readout), a linear layer and a softmax over the labels.

    An encoder that gives one vector itself is read as it is: every read-out of one frame is that frame.
    """

    one_label = True  # training then writes a confusion matrix beside the hypotheses

    def __init__(self, in_dim: int, n_labels: int, readout: Callable[..., Any], label_smoothing: float, dropout: float):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is a share in [0, 1), {label_smoothing} came")
        self.label_smoothing = label_smoothing
        self.readout = readout(in_dim=in_dim, n_directions=1)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(in_dim, n_labels)

    def attach(self, encoder: Any) -> None:
        """The last state of an encoder of two directions is the last frame of one and the first of the other."""
        fit_to(self.readout, encoder)

    def logits(self, hidden: Tensor, lens: Tensor) -> Tensor:
        """(B,U,D), (B,) -> (B,V), in float32 whatever the autocast"""
        read, _ = self.readout(hidden, lens)
        logits = self.output(self.dropout(read[:, 0]))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def loss(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,U,D), (B,), (B,1), (B,) -> (B,) cross entropy in nats, with smoothed labels in training only"""
        smoothing = self.label_smoothing if self.training else 0.0
        return nn.functional.cross_entropy(
            self.logits(hidden, lens), labels[:, 0], label_smoothing=smoothing, reduction="none"
        )

    def min_frames(self, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,L), (B,) -> (B,): one

        Raises:
            DataError: an utterance has another number of labels than one.
        """
        if (label_lens != 1).any():
            n = int(label_lens[label_lens != 1][0])
            raise DataError(
                f"decoder=keyword gives one label to an utterance, and a transcript has {n}; choose tokenizer=words, "
                "and a corpus of single words"
            )
        return torch.ones_like(label_lens)

    def posteriors(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,1,V), (B,1)"""
        log_probs = self.logits(hidden, lens).log_softmax(dim=-1)[:, None]
        return log_probs, torch.ones_like(lens, dtype=torch.bool)[:, None]
