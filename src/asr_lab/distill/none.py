"""No distillation."""

from typing import Any

from torch import Tensor

from asr_lab.types import Batch


class NoDistillation:
    """The labels alone."""

    def prepare(self, config: dict[str, Any], parts: Any) -> None:
        pass

    def __call__(
        self, losses: Tensor, decoder: Any, batch: Batch, hidden: Tensor, lens: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return losses, {}
