"""What is exported of a task, and how hypotheses follow from what it gives."""

from typing import Any

from torch import Tensor, nn

from asr_lab.task import SpeechTask

INPUTS = ("feats", "feat_lens")


class Network(nn.Module):
    """Head, encoder and, where the decoder gives a distribution over labels and a blank to each frame, that too.

    For any other decoder the encoder's output is given: its searches ask label after label what comes next.
    """

    def __init__(self, task: SpeechTask, n_features: int):
        super().__init__()
        self.n_features = n_features
        self.head, self.encoder = task.head, task.encoder
        self.framewise = hasattr(task.decoder, "log_probs") and hasattr(task.decoder, "BLANK")
        self.decoder: Any = task.decoder if self.framewise else None
        self.blank: int | None = self.decoder.BLANK if self.framewise else None
        self._decode, self._text, self._tokenizer = task.decode, task.text, task.tokenizer

    def forward(self, feats: Tensor, feat_lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) int64 -> log-probabilities (B,U,V+1) or encoder frames (B,U,D), and their lengths (B,)"""
        hidden, lens = self.encoder(*self.head(feats, feat_lens))
        return (self.decoder.log_probs(hidden) if self.framewise else hidden), lens

    @property
    def outputs(self) -> tuple[str, str]:
        return ("log_probs" if self.framewise else "hidden"), "lens"

    @property
    def about(self) -> dict[str, Any]:
        """Names of what goes in and out, and for log-probabilities what each column means."""
        labels = None
        if self.blank is not None:
            labels = list(self._tokenizer.symbols)
            labels.insert(self.blank, "<blank>")
        shown = {"inputs": list(INPUTS), "n_features": self.n_features, "outputs": list(self.outputs)}
        return shown | {"labels": labels, "blank": self.blank}

    def hypotheses(self, frames: Tensor, lens: Tensor) -> list[str]:
        """Texts of what `forward` gave: the best path through log-probabilities, or what the run's own search finds."""
        if self.blank is None:
            return [self._text(found[0]) for found in self._decode(frames, lens)]
        paths = zip(frames.argmax(dim=-1), lens.tolist(), strict=True)
        return [self._words(row[:n], self.blank) for row, n in paths]

    def _words(self, path: Tensor, blank: int) -> str:
        """Best label of each frame (U,) -> text; repeats are merged, blanks dropped, ids above the blank moved down."""
        path = path.unique_consecutive()
        labels = path[path != blank]
        return " ".join(self._tokenizer.decode((labels - (labels > blank).long()).tolist()).split())
