"""How much of the input one output frame depends on, composed layer by layer."""

import math
from typing import NamedTuple


class ReceptiveField(NamedTuple):
    """Output frame u depends on input frames `u * stride - left` to `u * stride + right`; `inf` is the whole utterance.

    Layers compose from the input upwards: `IDENTITY.conv(3, stride=2).conv(3, stride=2)` has left = right = 3.
    """

    left: float
    right: float
    stride: int

    def then(self, left: float, right: float, stride: int = 1) -> "ReceptiveField":
        """A layer on top whose frame u sees frames `u * stride - left` to `u * stride + right` of what is below."""
        return ReceptiveField(self.left + left * self.stride, self.right + right * self.stride, self.stride * stride)

    def conv(self, kernel: int, stride: int = 1, dilation: int = 1, causal: bool = False) -> "ReceptiveField":
        """A convolution on top, centred (odd kernels) or looking back only."""
        span = (kernel - 1) * dilation
        return self.then(span, 0, stride) if causal else self.then(span // 2, span - span // 2, stride)

    def all(self, left: bool = True, right: bool = True) -> "ReceptiveField":
        """A layer on top that remembers everything before and/or after a frame."""
        return self.then(math.inf if left else 0, math.inf if right else 0)


IDENTITY = ReceptiveField(0, 0, 1)
