"""The mean of several checkpoints, made once after training."""

import math
from typing import Any

from asr_lab.averaging.none import NoAveraging


class CheckpointAverage(NoAveraging):
    """Which validations' weights are averaged: the `n_checkpoints` with the best scores, or the last ones, as recipes
    of ESPnet and WeNet do. callbacks/averaging.py keeps them and makes the mean.
    """

    def __init__(self, n_checkpoints: int, choose: str, keep_files: bool):
        if n_checkpoints < 1:
            raise ValueError(f"averaging.n_checkpoints must be at least 1, {n_checkpoints} came")
        if choose not in ("best", "last"):
            raise ValueError(f"averaging.choose={choose}; choose from: best, last")
        self.n_checkpoints, self.choose, self.keep_files = n_checkpoints, choose, keep_files
        self.made: dict[str, Any] = {}  # when the mean has been made: of which checkpoints

    def save(self, checkpoint: dict[str, Any]) -> None:
        if self.made:
            checkpoint["averaging"] = self.made

    def chosen(self, scores: dict[int, float]) -> list[int]:
        """Of the validations after these steps, with their scores (the less the better), those that count: steps in
        order. Of equal scores the earlier one counts; a score that is no number comes last."""
        if self.choose == "last":
            return sorted(scores)[-self.n_checkpoints :]
        best = sorted(scores, key=lambda step: (math.isnan(scores[step]), scores[step], step))
        return sorted(best[: self.n_checkpoints])
