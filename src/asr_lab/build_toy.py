"""Configuration in, objects out, for toy landscapes: what build.py is to speech runs."""

from typing import Any, NamedTuple

from asr_lab.build import call, check, make
from asr_lab.data.toy import ToyData
from asr_lab.toy_task import ToyTask


class ToyParts(NamedTuple):
    """Everything that a run on a landscape is made of, except the trainer."""

    data: ToyData
    task: ToyTask


def build_toy(config: dict[str, Any]) -> ToyParts:
    """The data and the task of a resolved configuration.

    Raises:
        ConfigError: a key or value does not fit the part it is given to.
    """
    check(config)
    optimizer, schedule, clipper = (make(config, group) for group in ("optimizer", "schedule", "clipping"))
    landscape = call(config, "landscape", seed=config["seed"])
    task = ToyTask(
        landscape=landscape,
        optimizer=optimizer,
        weight_decay=config["optimizer"].get("weight_decay", 0.0),
        schedule=schedule,
        clipper=clipper,
        max_nonfinite_steps=config["max_nonfinite_steps"],
    )
    return ToyParts(ToyData(landscape, config["seed"]), task)
