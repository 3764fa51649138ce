"""What an encoder costs: parameters, arithmetic and what one output frame depends on. Counted, not timed."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

COUNTED_S = 10.0  # the utterance over which arithmetic is counted: attention's share grows with the length


def n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def macs(encoder: nn.Module, in_dim: int, n_frames: int) -> int:
    """Multiply-accumulate operations of one forward pass over an utterance of `n_frames` feature frames.

    Matrix products, convolutions and attention are counted, by PyTorch's own counter on the meta device, where nothing
    is computed; PyTorch's recurrent layers by their weights, each used once a frame. Element-wise work is not counted.
    An encoder that cannot run on the meta device (it reads values of tensors) runs on the CPU.
    """
    try:
        return _counted(copy.deepcopy(encoder).to("meta"), in_dim, n_frames)
    except (RuntimeError, NotImplementedError):
        return _counted(copy.deepcopy(encoder).to("cpu"), in_dim, n_frames)


def frames_per_second(frontend: Any, head: Any, sample_rate: int) -> float:
    """Feature frames that reach the encoder in a second of audio, without what the ends of an utterance add."""
    n_seconds = 1000
    first, last = (
        int(head.output_lengths(torch.tensor(frontend.n_frames(n * sample_rate)))) for n in (1, 1 + n_seconds)
    )
    return (last - first) / n_seconds


def counted_frames(rate: float) -> int:
    """Feature frames of the utterance over which arithmetic is counted."""
    return round(COUNTED_S * rate)


def cost(encoder: Any, in_dim: int, rate: float) -> dict[str, Any]:
    """For result.json, at `rate` feature frames a second: `parameters`, `macs_per_audio_second`, `receptive_field_s`.

    The field is [seconds before, seconds after], null where it is the whole utterance. What an encoder does not let be
    known is null or left out: a count never ends a training.
    """
    found: dict[str, Any] = {"parameters": n_parameters(encoder), "macs_per_audio_second": None}
    with contextlib.suppress(Exception):  # of somebody's own encoder: copied, moved, called in ways it may not know
        found["macs_per_audio_second"] = round(macs(encoder, in_dim, counted_frames(rate)) / COUNTED_S)
    field = getattr(encoder, "receptive_field", None)
    if field is not None:
        found["receptive_field_s"] = [None if x == float("inf") else round(x / rate, 6) for x in field[:2]]
    return found


def _counted(encoder: nn.Module, in_dim: int, n_frames: int) -> int:
    device = next((p.device for p in encoder.parameters()), torch.device("meta"))
    counter, recurrent = FlopCounterMode(display=False), _RecurrentMacs()
    with torch.no_grad(), counter, recurrent:
        feats = torch.zeros(1, n_frames, in_dim, device=device)
        encoder.eval()(feats, torch.full((1,), n_frames, device=device))
    return counter.get_total_flops() // 2 + recurrent.macs


class _RecurrentMacs(TorchFunctionMode):
    """Counts torch.lstm, torch.gru and torch.rnn_* and returns outputs without values.

    On the meta device PyTorch would take these apart into every step of every layer (measured: 3 s for a BiLSTM); on
    the CPU its counter does not see into them.
    """

    def __init__(self):
        super().__init__()
        self.macs = 0

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") not in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
            return func(*args, **(kwargs or {}))
        packed = isinstance(args[3], (list, tuple))  # (data, batch_sizes, hx, weights, ..., bidirectional)
        hx, weights = args[2:4] if packed else args[1:3]
        states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        x, two_ways = args[0], args[8] if packed else args[7]
        self.macs += x.shape[:-1].numel() * sum(w.numel() for w in weights if w.dim() == 2)
        out = x.new_zeros(*x.shape[:-1], states[0].shape[-1] * (2 if two_ways else 1))
        return (out, *(s.clone() for s in states))
