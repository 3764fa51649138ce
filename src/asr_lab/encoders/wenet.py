"""Trained parameters of WeNet and PaddleSpeech (U2) for `U2Encoder`: the key map.

    theirs, after `encoder.`                      ours
    embed.conv.{0,2,4}                            subsampling.convs.{0,1,2}
    embed.out.0 (embed.linear with 6 or 8)        subsampling.project
    encoders.N.norm_ff_macaron                    layers.N.feed_forward_in.0
    encoders.N.feed_forward_macaron.w_{1,2}       layers.N.feed_forward_in.{1,4}
    encoders.N.norm_mha                           layers.N.norm_attention
    encoders.N.self_attn.*                        layers.N.self_attn.*
    encoders.N.norm_conv                          layers.N.convolution.norm_in
    encoders.N.conv_module.pointwise_conv{1,2}    layers.N.convolution.pointwise_{in,out}   kernel 1: the last axis goes
    encoders.N.conv_module.{depthwise_conv,norm}  layers.N.convolution.{depthwise,norm}
    encoders.N.norm_ff                            layers.N.feed_forward_out.0
    encoders.N.feed_forward.w_{1,2}               layers.N.feed_forward_out.{1,4}
    encoders.N.norm_final                         layers.N.norm_out
    after_norm                                    norm_out

PaddleSpeech stores linear layers transposed and calls running statistics `_mean` and `_variance`; both are seen by
themselves. Layer norms have eps 1e-5 here and in WeNet, 1e-12 in PaddleSpeech. Their
convolution modules let what the GLU makes of padding into the last frames of a short utterance in a batch, ours do not:
an utterance gives here what it gives there when it is alone.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from asr_lab.errors import DataError

FRONT = {
    "embed.conv.0": "subsampling.convs.0",
    "embed.conv.2": "subsampling.convs.1",
    "embed.conv.4": "subsampling.convs.2",
    "embed.out.0": "subsampling.project",
    "embed.linear": "subsampling.project",
    "after_norm": "norm_out",
}
BLOCK = {
    "norm_ff_macaron": "feed_forward_in.0",
    "feed_forward_macaron.w_1": "feed_forward_in.1",
    "feed_forward_macaron.w_2": "feed_forward_in.4",
    "norm_mha": "norm_attention",
    "self_attn": "self_attn",
    **{f"self_attn.linear_{x}": f"self_attn.linear_{x}" for x in ("q", "k", "v", "out", "pos")},
    "norm_conv": "convolution.norm_in",
    "conv_module.pointwise_conv1": "convolution.pointwise_in",
    "conv_module.depthwise_conv": "convolution.depthwise",
    "conv_module.norm": "convolution.norm",
    "conv_module.pointwise_conv2": "convolution.pointwise_out",
    "norm_ff": "feed_forward_out.0",
    "feed_forward.w_1": "feed_forward_out.1",
    "feed_forward.w_2": "feed_forward_out.4",
    "norm_final": "norm_out",
}
STATISTICS = {"_mean": "running_mean", "_variance": "running_var"}


def load(encoder: nn.Module, theirs: Mapping[str, Any]) -> list[str]:
    """Copies a state dict of theirs (tensors or arrays; of a whole model or of its encoder) into `encoder`.

    Returns the names that were left out: the decoder and CTC, the feature statistics `global_cmvn` (set
    frontend.cmvn to the same), and `concat_linear`, which their encoder holds but does not use.

    Raises:
        DataError: something does not fit. The line names it, and `encoder` keeps what it had.
    """
    whole = any(name.startswith("encoder.embed.") for name in theirs)
    ours, found, left_out, wrong = encoder.state_dict(), {}, [], []
    linear = {f"{name}.weight" for name, module in encoder.named_modules() if isinstance(module, nn.Linear)}
    transposed = _is_transposed(theirs)
    for name, value in theirs.items():
        if (whole and not name.startswith("encoder.")) or re.search(r"global_cmvn|concat_linear|\.pe$", name):
            left_out.append(name)
            continue
        key = our_name(name.removeprefix("encoder.") if whole else name)
        if key not in ours:
            wrong.append(f"{name} is not known here")
            continue
        tensor = _as_ours(value, ours[key], key in linear, transposed)
        if tensor.shape != ours[key].shape:
            wrong.append(f"{name} has shape {list(tensor.shape)} where {list(ours[key].shape)} is wanted")
        found[key] = tensor
    missing = [key for key in ours if key not in found and not key.endswith("num_batches_tracked")]
    wrong += [f"nothing came for {key}" for key in missing]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataError(f"the state dict does not fit this encoder: {'; '.join(wrong[:3])}{more}")
    encoder.load_state_dict({**ours, **found})
    return left_out


def our_name(theirs: str) -> str | None:
    """`encoders.3.norm_mha.weight` -> `layers.3.norm_attention.weight`; None for a name that the map has not."""
    module, _, parameter = theirs.rpartition(".")
    parameter = STATISTICS.get(parameter, parameter)
    block = re.fullmatch(r"encoders\.(\d+)\.(.+)", module)
    if block is None:
        return f"{FRONT[module]}.{parameter}" if module in FRONT else None
    return f"layers.{block[1]}.{BLOCK[block[2]]}.{parameter}" if block[2] in BLOCK else None


def _is_transposed(theirs: Mapping[str, Any]) -> bool:
    """A feed-forward layer is wider than the model: its shape tells (in, out) from (out, in)."""
    shapes = [value.shape for name, value in theirs.items() if name.endswith("feed_forward.w_1.weight")]
    return bool(shapes) and shapes[0][0] < shapes[0][1]


def _as_ours(value: Any, like: Tensor, is_linear: bool, transposed: bool) -> Tensor:
    tensor = torch.as_tensor(value).to(like)
    if is_linear and tensor.dim() == 3:
        return tensor.squeeze(-1)
    return tensor.T if is_linear and transposed else tensor
