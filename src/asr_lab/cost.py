"""What an encoder costs: parameters, arithmetic and what one output frame depends on. Counted, not timed."""

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

COUNTED_S = 10.0  # the utterance over which arithmetic is counted: attention's share grows with the length


def n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def macs(encoder: nn.Module, in_dim: int, n_frames: int) -> int:
    """Multiply-accumulate operations of one forward pass over an utterance of `n_frames` feature frames.

    Matrix products, convolutions and attention are counted, by PyTorch's own counter on the meta device; element-wise
    work is not.
    """
    on_meta = copy.deepcopy(encoder).to("meta").eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        on_meta(torch.empty(1, n_frames, in_dim, device="meta"), torch.full((1,), n_frames, device="meta"))
    return counter.get_total_flops() // 2


def cost(encoder: Any, in_dim: int, frames_per_second: float) -> dict[str, Any]:
    """For result.json: parameters, MACs per second of audio, and the receptive field in seconds (None: everything)."""
    n_frames = round(COUNTED_S * frames_per_second)
    found: dict[str, Any] = {
        "parameters": n_parameters(encoder),
        "macs_per_audio_second": round(macs(encoder, in_dim, n_frames) / COUNTED_S),
    }
    if hasattr(encoder, "receptive_field"):
        left, right, _ = encoder.receptive_field
        found["receptive_field_s"] = [None if x == float("inf") else x / frames_per_second for x in (left, right)]
    return found
