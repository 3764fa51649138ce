"""Which features an output depends on: its gradient (Simonyan et al. 2013, "Deep inside convolutional networks")."""

from typing import NamedTuple

import torch
from torch import Tensor

from asr_lab.inspect.features import Features
from asr_lab.inspect.network import Subject

N_DIRECTIONS = 16


class Saliency(NamedTuple):
    explained: str
    feats: Tensor  # (T, F)
    gradient: Tensor  # (T, F): |d explained / d feature|, of a frame the norm over its elements
    labels: list[
        tuple[float, str]
    ]  # the best path: (share of the time that went by, text), blanks and repeats left out
    at: float | None  # share of the time of the frame that is explained; None: all frames


def saliency(subject: Subject, features: Features) -> Saliency:
    """Of the best path's log-probability with a trained frame-wise decoder, else of the middle hidden frame.

    The norm of the frame itself would tell nothing: a layer norm at the end of an encoder keeps it constant.
    """
    network = subject.network
    feats = features.feats.clone().requires_grad_()
    if subject.is_trained and network.is_frame_wise:
        scores, path = network(feats, features.lens)[0][0].max(dim=-1)
        [gradient] = torch.autograd.grad(scores.sum(), feats)
        explained = "the summed log-probability of the best path"
        return Saliency(explained, features.feats[0], gradient[0].abs(), _labels(subject, path), None)
    hidden = network.encoder(*network.head(feats, features.lens))[0][0]  # (U, D)
    middle = len(hidden) // 2
    gradient = _jacobian_norm(hidden[middle], feats, subject.config["seed"])
    at = (middle + 0.5) / len(hidden)
    return Saliency(f"hidden frame {middle} of {len(hidden)}", features.feats[0], gradient[0], [], at)


def _jacobian_norm(y: Tensor, x: Tensor, seed: int) -> Tensor:
    """(D,), any shape -> the shape of x: estimated 2-norm over D of dy / dx, from random directions (Hutchinson)."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(N_DIRECTIONS, len(y), generator=generator).to(y)
    gradients = [torch.autograd.grad(y, x, v, retain_graph=True)[0] for v in directions]
    return torch.stack(gradients).square().mean(dim=0).sqrt()


def _labels(subject: Subject, path: Tensor) -> list[tuple[float, str]]:
    assert subject.data is not None
    blank, found, last = getattr(subject.network.decoder, "BLANK", 0), [], None
    for u, label in enumerate(path.tolist()):
        if label not in (blank, last):
            found.append(((u + 0.5) / len(path), subject.data.tokenizer.decode([label - 1])))
        last = label
    return found
