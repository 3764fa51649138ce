"""Which features an output depends on: its gradient (Simonyan et al. 2013, "Deep inside convolutional networks")."""

from typing import NamedTuple

import torch
from torch import Tensor

from asr_lab.inspect.features import Features
from asr_lab.inspect.network import Network, Subject


class Saliency(NamedTuple):
    explained: str
    feats: Tensor  # (T, F)
    gradient: Tensor  # (T, F): |d explained / d feature|
    labels: list[tuple[float, str]]  # the best path: (share of the time that went by, text), blanks and repeats left out
    at: float | None  # share of the time of the frame that is explained; None: all frames


def saliency(subject: Subject, features: Features) -> Saliency:
    """Of the best path's log-probability with a trained frame-wise decoder, else of the middle hidden frame's norm."""
    network = subject.network
    feats = features.feats.clone().requires_grad_()
    labels: list[tuple[float, str]] = []
    if subject.is_trained and network.is_frame_wise:
        log_probs, _ = network(feats, features.lens)
        scores, path = log_probs[0].max(dim=-1)
        explained, score, at = "summed log-probability of the best path", scores.sum(), None
        labels = _labels(subject, path)
    else:
        hidden = _hidden(network, feats, features.lens)[0]
        middle = len(hidden) // 2
        explained, score = f"norm of hidden frame {middle} of {len(hidden)}", hidden[middle].norm()
        at = (middle + 0.5) / len(hidden)
    [gradient] = torch.autograd.grad(score, feats)
    return Saliency(explained, features.feats[0], gradient[0].abs(), labels, at)


def _hidden(network: Network, feats: Tensor, lens: Tensor) -> Tensor:
    """(B,U,D)"""
    return network.encoder(*network.head(feats, lens))[0]


def _labels(subject: Subject, path: Tensor) -> list[tuple[float, str]]:
    assert subject.data is not None
    blank, found, last = getattr(subject.network.decoder, "BLANK", 0), [], None
    for u, label in enumerate(path.tolist()):
        if label not in (blank, last):
            found.append(((u + 0.5) / len(path), subject.data.tokenizer.decode([label - 1])))
        last = label
    return found
