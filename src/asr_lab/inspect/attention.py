"""Attention weights of a forward pass, and where they are drawn."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asr_lab.errors import ConfigError
from asr_lab.inspect.trace import Call, watched

SUBMODULE = "weights"  # what attention modules pass their weights through: see layers/self_attention.py


class Map(NamedTuple):
    """The weights of one attention module in one call."""

    path: str  # of the attention module
    weights: Tensor  # (H, U, K): rows are queries, columns keys; a row sums to 1


@torch.no_grad()
def attention_maps(network: nn.Module, feats: Tensor, lens: Tensor) -> list[Map]:
    """Every attention module's weights for the first utterance, in the order of the calls.

    Raises:
        ConfigError: the network has no attention.
    """
    maps: list[Map] = []

    def leave(call: Call, output: Any) -> None:
        above, _, name = call.path.rpartition(".")
        if name == SUBMODULE and isinstance(output, Tensor) and output.dim() == 4:
            maps.append(Map(above, output[0].clone()))

    with watched(network, lambda call, arguments: None, leave):
        network(feats, lens)
    if not maps:
        kind = type(getattr(network, "encoder", network)).__name__
        raise ConfigError(f"--attention: {kind} has no attention weights to draw; choose encoder=conformer, for one")
    return maps
