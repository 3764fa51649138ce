"""TensorBoard: curves, histograms, and a row of the HParams page for each run."""

from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger

from asr_lab.run import Run
from asr_lab.tracking import RunInfo


class TensorBoard(TensorBoardLogger):
    """Event files in `tensorboard/` of the run's folder. When the run is over, its factors and its scores become a row
    of the HParams page: `tensorboard --logdir outputs/EXPERIMENT` compares all runs there."""

    def __init__(self, run: RunInfo):
        super().__init__(save_dir=run.folder, name="tensorboard", version="", default_hp_metric=False)
        self.run = run

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """At the end, with the scores."""

    def close(self) -> None:
        result = Run.result_in(self.run.folder) or {}
        metrics = {k: v for k, v in result.get("metrics", {}).items() if k.startswith(("val/", "test/"))}
        if result.get("status") == "done" and metrics:
            # Names of their own: as points of the curves they would stand for a step.
            scores = {f"final/{k}": v for k, v in metrics.items()}
            super().log_hyperparams(self.run.factors, scores, result.get("steps"))
        self.experiment.flush()
        self.experiment.close()
