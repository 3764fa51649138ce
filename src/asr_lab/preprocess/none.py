"""No pre-processing."""

from torch import Tensor


class NoPreprocess:
    keeps_length = True

    def __call__(self, audio: Tensor) -> Tensor:
        return audio
