"""The grid of an experiment as a sweep of Weights & Biases, whose agents run `asr-lab train` with their arguments."""

import json
import math
from collections.abc import Sequence
from typing import Any

from asr_lab.errors import ConfigError
from asr_lab.sweep.opened import plan_of
from asr_lab.sweep.plan import Plan
from asr_lab.sweep.values import write

METHODS = ("grid", "random", "bayes")


def sweep_config(flags: Sequence[str], arguments: Sequence[str], method: str, product: bool) -> dict[str, Any]:
    """What `wandb sweep` reads. `flags` say where the experiment is, as `cli.sweep.location` gives them; `arguments`
    are overrides.

    W&B multiplies all parameters with each other. A grid that leaves cells out, pairs axes or samples them is no such
    product; with `product` it becomes one.

    Raises:
        ConfigError: the method is unknown, the grid is no product; or as `make_plan`.
    """
    if method not in METHODS:
        raise ConfigError(f"--method: there is no '{method}'; choose from: {', '.join(METHODS)}")
    plan = plan_of(flags, arguments)
    axes = axes_of(plan)
    size = math.prod(len(values) for values in axes.values())
    if size != len(plan.cells) and not product:
        raise ConfigError(
            f"{plan.experiment}: its grid has {len(plan.cells)} cells, but its axes multiply to {size}; a sweep of W&B "
            "takes all of these. --product writes it all the same, or give the axes' values: encoder=lstm,gru"
        )
    score = plan.look("data.score") or "wer"
    fixed = [a for a in arguments if a.partition("=")[0] not in axes]
    logger = [] if any(a.startswith("logger=") for a in fixed) else ["logger=wandb"]
    # The experiment is the configuration that a run starts from; its grid says nothing to a single run.
    return {
        "name": plan.experiment,
        "description": plan.question,
        "program": "asr-lab",
        "method": method,
        "metric": {"name": f"val/{score}", "goal": "minimize"},
        "parameters": {key: {"values": [_value(v) for v in values]} for key, values in axes.items()},
        "command": ["${env}", "${program}", "train", *flags, *logger, *fixed, "${args_no_hyphens}"],
    }


def axes_of(plan: Plan) -> dict[str, list[Any]]:
    """The values of each axis in the plan's cells, in their order; an axis that some cells lack is refused.

    Raises:
        ConfigError: such an axis.
    """
    axes: dict[str, list[Any]] = {}
    for cell in plan.cells:
        for key, value in cell.cell.items():
            known = axes.setdefault(key, [])
            if not any(json.dumps(v, default=str) == json.dumps(value, default=str) for v in known):
                known.append(value)
    for key in axes:
        lacking = sum(key not in cell.cell for cell in plan.cells)
        if lacking:
            raise ConfigError(f"{plan.experiment}: {lacking} of {len(plan.cells)} cells have no value for {key}; "
                              "every run of a W&B sweep has a value for every parameter")  # fmt: skip
    return axes


def _value(value: Any) -> Any:
    """As W&B hands it on: `key=value`, which Hydra then reads"""
    is_plain = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_plain else write(value)
