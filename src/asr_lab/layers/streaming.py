"""When an encoder of subsampling, attention and convolutions can stream, and what it takes piece by piece."""

from typing import Any

from asr_lab.errors import ConfigError
from asr_lab.layers.context import Context


def stream_frames(context: Context, subsampling: Any, causal: bool) -> int | None:
    """Feature frames in one step of `stream`; None where something looks ahead of its chunk."""
    if context.chunk_size is None or not (subsampling.streams and causal):
        return None
    return context.chunk_size * subsampling.factor


def refusal(context: Context, subsampling: Any, causal: bool) -> ConfigError:
    """The error that names every key which keeps an encoder from streaming."""
    changes = []
    if context.chunk_size is None:
        changes.append("encoder/context=chunk (a frame sees the whole utterance)")
    if not causal:
        changes.append("encoder.causal=true (the convolution modules look ahead)")
    if not subsampling.streams:
        padded = hasattr(subsampling, "padding")
        key = "encoder.subsampling.padding=causal" if padded else "encoder/subsampling=none"
        changes.append(f"{key} (the subsampling looks ahead)")
    return ConfigError(f"this encoder cannot stream; set {', '.join(changes)}")


def is_last(n_frames: int, wanted: int, ended: bool) -> bool:
    """Feature frames of a piece, those that one step takes, whether the last piece came before: is this the last?

    Raises:
        ConfigError: the pieces do not fit; only the last may be shorter than the others.
    """
    if ended or not 1 <= n_frames <= wanted:
        what = "a piece after a shorter one" if ended else f"a piece of {n_frames} feature frames"
        raise ConfigError(
            f"{what} came to stream, which takes {wanted} at a time (context.chunk_size times the subsampling's "
            "factor) and a shorter piece, of 1 at least, only as the last"
        )
    return n_frames < wanted
