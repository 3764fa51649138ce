"""The same parameter groups for every optimizer, so that an optimizer ablation compares optimizers."""

from torch import nn


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: matrices and kernels decay, vectors and scalars (norms, biases, position biases of one head) do not.

    Every trainable parameter is in exactly one group.
    """
    decayed, plain = [], []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_plain = parameter.ndim < 2 or name.rsplit(".", 1)[-1].startswith(("bias", "pos_bias"))
            (plain if is_plain else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [g for g in groups if g["params"]]
