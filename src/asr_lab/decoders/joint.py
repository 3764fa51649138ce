"""Joint training of CTC and an attention decoder on one encoder (Kim et al. 2017)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from asr_lab.decoders import Span


class JointDecoder(nn.Module):
    """loss = `ctc_weight` CTC + (1 - `ctc_weight`) attention; searches may use either of them, or both.

    What is frame-wise (`log_probs`, `BLANK`, `align`) is the CTC layer's, what goes label after label is the attention
    decoder's. `ctc` and `attention` are decoders themselves.
    """

    def __init__(self, in_dim: int, n_labels: int, ctc: Callable, attention: Callable, ctc_weight: float):
        super().__init__()
        if not 0 < ctc_weight < 1:
            raise ValueError(
                f"ctc_weight is a share between 0 and 1, {ctc_weight} came; one part alone is decoder=ctc, transformer "
                "or attention"
            )
        self.ctc: Any = ctc(in_dim=in_dim, n_labels=n_labels)
        self.attention: Any = attention(in_dim=in_dim, n_labels=n_labels)
        self.ctc_weight, self.BLANK = ctc_weight, self.ctc.BLANK
        self.terms: dict[str, Tensor] = {}  # of the last loss
        if hasattr(self.attention, "attended"):
            self.attended = self.attention.attended

    def attach(self, encoder: nn.Module) -> None:
        for part in (self.ctc, self.attention):
            if hasattr(part, "attach"):
                part.attach(encoder)

    def loss(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,U,D), (B,), (B,L), (B,) -> (B,) in nats; inf where CTC has no alignment"""
        ctc = self.ctc.loss(hidden, lens, labels, label_lens)
        attention = self.attention.loss(hidden, lens, labels, label_lens)
        self.terms = {"ctc": ctc.detach(), "attention": attention.detach()}
        return self.ctc_weight * ctc + (1 - self.ctc_weight) * attention

    def min_frames(self, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,L), (B,) -> (B,): what both parts can do with"""
        return self.ctc.min_frames(labels, label_lens).maximum(self.attention.min_frames(labels, label_lens))

    def log_probs(self, hidden: Tensor) -> Tensor:
        """(B,U,D) -> (B,U,V+1)"""
        return self.ctc.log_probs(hidden)

    def log_prior(self) -> Tensor:
        """(V+1,)"""
        return self.ctc.log_prior()

    def align(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> list[list[Span]]:
        return self.ctc.align(hidden, lens, labels, label_lens)

    def posteriors(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> tuple[Tensor, Tensor]:
        """The attention decoder's: (B,L+1,V+1), valid (B,L+1)"""
        return self.attention.posteriors(hidden, lens, labels, label_lens)

    def begin(self, hidden: Tensor, lens: Tensor) -> Any:
        return self.attention.begin(hidden, lens)

    def scores(self, state: Any) -> Tensor:
        """(N, V+1)"""
        return self.attention.scores(state)

    def advance(self, state: Any, labels: Tensor) -> Any:
        return self.attention.advance(state, labels)

    def select(self, state: Any, rows: Tensor) -> Any:
        return self.attention.select(state, rows)
