"""Several choices, one after the other."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from asr_lab.clipping import Clipper
from asr_lab.types import ClipReport


class SequenceClipping:
    """`first`, then `second` on what it left."""

    def __init__(self, first: Clipper, second: Clipper):
        self.parts = (first, second)

    def attach(self, module: nn.Module) -> None:
        for part in self.parts:
            if hasattr(part, "attach"):
                part.attach(module)  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        parameters = list(parameters)
        a, b = (part(parameters) for part in self.parts)
        skips = [report.skip for report in (a, b) if report.skip is not None]
        skip = skips[0] | skips[1] if len(skips) == 2 else skips[0] if skips else None
        after = b.norm_after if skip is None else b.norm_after.masked_fill(skip, 0.0)
        return ClipReport(a.norm_before, after, a.clipped | b.clipped, skip)

    def state_dict(self) -> dict[str, Any]:
        return {
            str(i): part.state_dict()  # pyright: ignore[reportAttributeAccessIssue]
            for i, part in enumerate(self.parts)
            if hasattr(part, "state_dict")
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for i, values in state.items():
            self.parts[int(i)].load_state_dict(values)  # pyright: ignore[reportAttributeAccessIssue]
