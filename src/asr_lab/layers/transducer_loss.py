"""The transducer's loss (Graves 2012): -log of the summed probability of all alignments, in choices that agree.

Each takes logits (B,U,L+1,V+1) with the blank last, lens (B,), labels (B,L) in 0..V-1 and label_lens (B,), and gives
(B,) nats. U and L are those of the longest utterance.
"""

import torch
from torch import Tensor

from asr_lab.layers.transducer_lattice import forward, occupancies


class TorchaudioLoss:
    """torchaudio's kernel, in float32."""

    def __call__(self, logits: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        from torchaudio.functional import rnnt_loss

        small = (t.to(torch.int32).contiguous() for t in (labels, lens, label_lens))
        return rnnt_loss(logits.float().contiguous(), *small, blank=logits.shape[-1] - 1, reduction="none")


class OwnLoss:
    """Plain PyTorch, on any device and in any precision."""

    label_gain = 1.0

    def __call__(self, logits: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        return _Loss.apply(logits, lens, labels, label_lens, self.label_gain)  # pyright: ignore[reportReturnType]


class FastEmitLoss(OwnLoss):
    """FastEmit (Yu et al. 2021, "FastEmit: low-latency streaming ASR with sequence-level emission regularization"):
    gradients through labels, not those through blanks, are 1 + weight times as large, which says labels earlier.

    What it returns is the plain loss; only its gradient differs.
    """

    def __init__(self, weight: float):
        if weight < 0:
            raise ValueError(f"transducer_loss.weight must not be negative, {weight} came")
        self.label_gain = 1 + weight


class _Loss(torch.autograd.Function):
    """One tensor of the size of the logits is kept for the backward pass, and one made in it."""

    @staticmethod
    def forward(ctx, logits: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor, label_gain: float) -> Tensor:
        log_probs = logits.log_softmax(dim=-1)
        walked = forward(*arcs(log_probs, labels), lens, label_lens, best=False)
        ctx.walked, ctx.label_gain = walked, label_gain
        ctx.save_for_backward(log_probs, labels)
        return -walked.total

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        log_probs, labels = ctx.saved_tensors
        blank, label = (o * grads[0][:, None, None] for o in occupancies(ctx.walked, best=False))
        label = ctx.label_gain * label
        grad = log_probs.exp().mul_((blank + label)[..., None])
        grad[..., -1] -= blank
        chosen = labels[:, None, :, None].expand(-1, grad.shape[1], -1, 1)
        grad[:, :, :-1].scatter_add_(3, chosen, -label[:, :, :-1, None])
        return grad, None, None, None, None


def arcs(log_probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(B,U,L+1,V+1), (B,L) -> (B,U,L+1) log-probabilities of the blank, and of the next label (0 behind the last)"""
    chosen = labels[:, None, :, None].expand(-1, log_probs.shape[1], -1, 1)
    label = torch.nn.functional.pad(log_probs[:, :, :-1].gather(3, chosen)[..., 0], (0, 1))
    return log_probs[..., -1], label
