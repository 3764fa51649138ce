"""CTC with a second opinion from inside the encoder (Lee & Watanabe 2021)."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from asr_lab.decoders.ctc import CtcDecoder
from asr_lab.errors import ConfigError


class Tap:
    """A forward hook that keeps what a layer gave in training, until somebody takes it; nothing in evaluation."""

    def __init__(self, norm: nn.Module | None):
        self.norm = norm
        self.kept: Tensor | None = None

    def __call__(self, layer: nn.Module, args: Any, output: Any) -> None:
        self.kept = None
        if layer.training and torch.is_grad_enabled():
            hidden = output[0] if isinstance(output, tuple) else output
            self.kept = hidden if self.norm is None else self.norm(hidden)

    def take(self) -> Tensor | None:
        kept, self.kept = self.kept, None
        return kept

    def __getstate__(self) -> dict[str, Any]:
        # What was kept is of one step, with its graph; neither is for a copy or a file.
        return {"norm": self.norm, "kept": None}


class InterCtcDecoder(CtcDecoder):
    """The training loss is (1 - w) CTC(output) + w mean CTC(layers in between), w = `inter_weight`.

    `inter_layers` are shares of the encoder's depth: 0.5 is the layer in the middle (rounded down, but at least the
    first). All share the output layer, as published, and the norm after the encoder's last layer where there is one.
    In evaluation it is plain CTC.
    """

    def __init__(
        self,
        in_dim: int,
        n_labels: int,
        dropout: float,
        loss_on_cpu: bool,
        entropy_weight: float,
        prior_decay: float,
        inter_weight: float,
        inter_layers: list[float],
    ):
        super().__init__(in_dim, n_labels, dropout, loss_on_cpu, entropy_weight, prior_decay)
        if not 0 < inter_weight < 1:
            raise ValueError(
                f"inter_weight is between 0 and 1, {inter_weight} came; decoder=ctc has no inter-layer loss"
            )
        if not inter_layers or not all(0 < share < 1 for share in inter_layers):
            raise ValueError(f"inter_layers are shares of the encoder's depth between 0 and 1, {inter_layers} came")
        self.inter_weight, self.inter_layers = inter_weight, inter_layers
        self.taps: list[Tap] = []
        self._of = ""

    def attach(self, encoder: Any) -> None:
        """Listen at layers of the encoder.

        Raises:
            ConfigError: it has no layers in between.
        """
        self._of = type(encoder).__name__
        layers = getattr(encoder, "layers", None)
        if not isinstance(layers, nn.ModuleList) or len(layers) < 2:
            n = len(layers) if isinstance(layers, nn.ModuleList) else "no"
            raise ConfigError(
                f"decoder=ctc_inter listens at layers inside the encoder; {self._of} has {n} such layer"
                f"{'' if n == 1 else 's'}. Choose decoder=ctc, or another encoder or encoder.n_layers"
            )
        chosen = sorted({max(1, math.floor(share * len(layers))) for share in self.inter_layers})
        norm = getattr(encoder, "norm_out", None)
        self.taps = [Tap(None if isinstance(norm, nn.Identity) else norm) for _ in chosen]
        for number, tap in zip(chosen, self.taps, strict=True):
            layers[number - 1].register_forward_hook(tap)

    def loss(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,U,D), (B,), (B,L), (B,) -> (B,); takes what the last forward step of the encoder in training left

        Raises:
            ConfigError: a layer inside has other frames or another width than the encoder's output.
        """
        loss = super().loss(hidden, lens, labels, label_lens)
        inner = [kept for tap in self.taps if (kept := tap.take()) is not None]
        if not self.training or not inner:
            return loss
        for one in inner:
            if one.shape != hidden.shape:
                raise ConfigError(
                    f"decoder=ctc_inter: a layer inside {self._of} gives {one.shape[1]} frames of width {one.shape[2]},"
                    f" the encoder {hidden.shape[1]} of {hidden.shape[2]}; choose other decoder.inter_layers, or "
                    "decoder=ctc"
                )
        losses = [self.ctc_loss(self.log_probs(one), lens, labels, label_lens) for one in inner]
        inter = torch.stack(losses).mean(dim=0)
        self.terms = {"ctc": loss.detach(), **self.terms, "inter": inter.detach()}
        return (1 - self.inter_weight) * loss + self.inter_weight * inter
