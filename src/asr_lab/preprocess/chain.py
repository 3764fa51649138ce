"""Several pre-processing steps, one after the other."""

from torch import Tensor

from asr_lab.errors import nearest
from asr_lab.preprocess import Preprocess


class Chain:
    """The named steps that `steps` lists, in its order; one that it does not list does not happen.

    The names are for overrides (`preprocess.highpass.cutoff_hz=100`). The order is a list of its own, and not that of
    the YAML's keys, because a run is recognised by its values: two orders are two runs.
    """

    def __init__(self, steps: list[str], **named: Preprocess):
        if not isinstance(steps, list) or not steps:
            raise ValueError(
                f"steps is a list of one or more of {sorted(named)}, {steps!r} came; preprocess=none is none"
            )
        for name in steps:
            if name not in named:
                raise ValueError(f"steps: {name!r} is not defined{nearest(str(name), named)}")
        self.steps = [named[name] for name in steps]
        self.keeps_length = all(step.keeps_length for step in self.steps)

    def __call__(self, audio: Tensor) -> Tensor:
        for step in self.steps:
            audio = step(audio)
        return audio
