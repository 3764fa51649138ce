"""The same parameter groups for every optimizer, so that an optimizer ablation compares optimizers."""

from torch import nn


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: matrices and kernels decay, vectors and scalars (norms, biases, position biases of one head) do not.

    Every trainable parameter is in exactly one group. `hidden` says of each whether it is a matrix inside the network,
    neither an embedding nor an output layer, for an optimizer that treats those differently (Muon).
    """
    labels = {
        id(p)
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Embedding) or name.rsplit(".", 1)[-1] == "output"
        for p in layer.parameters(recurse=False)
    }
    decayed, plain = [], []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_plain = parameter.ndim < 2 or name.rsplit(".", 1)[-1].startswith(("bias", "pos_bias"))
            (plain if is_plain else decayed).append(parameter)
    groups = [
        {
            "params": decayed,
            "weight_decay": weight_decay,
            "hidden": [p.ndim == 2 and id(p) not in labels for p in decayed],
        },
        {"params": plain, "weight_decay": 0.0, "hidden": [False] * len(plain)},
    ]
    return [g for g in groups if g["params"]]
