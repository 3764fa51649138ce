"""Several pre-processing steps, one after the other."""

from torch import Tensor

from asr_lab.preprocess import Preprocess


class Chain:
    """The named steps in their order; the names are for overrides (`preprocess.highpass.cutoff_hz=100`)."""

    def __init__(self, **steps: Preprocess):
        if not steps:
            raise ValueError("a chain has at least one step; preprocess=none is no pre-processing")
        self.steps = list(steps.values())
        self.keeps_length = all(step.keeps_length for step in self.steps)

    def __call__(self, audio: Tensor) -> Tensor:
        for step in self.steps:
            audio = step(audio)
        return audio
