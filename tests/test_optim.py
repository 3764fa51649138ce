"""Parameter groups, and what reaches an optimizer."""

import pytest
import torch

from asr_lab.build import build
from asr_lab.optim.groups import parameter_groups
from asr_lab.sweep.cell import resolved

from .conftest import choices, composed, families, tiny


@pytest.mark.parametrize("encoder", families("bilstm", "conformer", "quartznet", "mamba"))
def test_every_parameter_is_in_one_group_and_vectors_do_not_decay(encoder, tones):
    task = build(resolved(composed(*tiny(tones, f"encoder={encoder}")))).task
    decayed, plain = parameter_groups(task, 0.1)
    names = {id(p): n for n, p in task.named_parameters()}
    in_groups = [names[id(p)] for g in (decayed, plain) for p in g["params"]]
    assert sorted(in_groups) == sorted(names.values())
    assert plain["weight_decay"] == 0.0
    assert decayed["weight_decay"] == 0.1
    assert all("bias" not in names[id(p)] and "norm" not in names[id(p)] for p in decayed["params"])
    assert all(p.ndim < 2 or "bias" in names[id(p)] for p in plain["params"])


# What an optimizer keeps only in another form; that it counts, its update by hand shows (tests/test_optimizers.py).
DERIVED = {"eta", "bits", "success"}


@pytest.mark.parametrize("name", choices("optimizer"))
@pytest.mark.quick(5)
def test_every_keyword_of_the_yaml_reaches_the_optimizer(name, tones):
    config = resolved(composed(*tiny(tones, f"optimizer={name}")))
    task = build(config).task
    optimizer = task.make_optimizer(parameter_groups(task, config["optimizer"]["weight_decay"]))
    for key, value in config["optimizer"].items():
        if key.startswith("_") or key in DERIVED or isinstance(value, dict):  # those of an optimizer inside are its own
            continue
        group = optimizer.param_groups[0]
        got = group[key] if key in group else getattr(optimizer, key)
        assert list(got) == value if isinstance(got, tuple | list) else got == value


def test_adamw_ignores_a_skipped_step():
    """What the training task relies on when it drops non-finite gradients."""
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([p], lr=0.1, weight_decay=0.5)
    p.grad = torch.ones(3)
    optimizer.step()
    before = p.detach().clone()
    p.grad = None
    optimizer.step()
    assert torch.equal(p, before)
