"""The callbacks of a run, in their order."""

from datetime import timedelta
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar

from asr_lab.build import call
from asr_lab.callbacks.averaging import KeptCheckpoints
from asr_lab.callbacks.checkpoint import BestCheckpoint, TimedCheckpoint
from asr_lab.callbacks.lines import EpochLines
from asr_lab.callbacks.meter import Meter
from asr_lab.callbacks.progress import Progress
from asr_lab.callbacks.seeding import StepSeeds
from asr_lab.callbacks.stopping import StopBetweenSteps
from asr_lab.process import is_quiet
from asr_lab.run import Run


def build_callbacks(run: Run, meter: Meter, averaging: Any) -> tuple[list[Any], BestCheckpoint]:
    """(all callbacks, the one that keeps the best checkpoint)"""
    # Two of them: Lightning's own `save_last` only follows when the best one moves.
    shared = {"dirpath": run.checkpoints, "save_on_train_epoch_end": False, "enable_version_counter": False}
    kept = KeptCheckpoints.of(averaging, run.checkpoints, run.score)
    best = BestCheckpoint(kept, filename="best", monitor=f"val/{run.score}", mode="min", **shared)
    last = ModelCheckpoint(filename="last", **shared)
    often = TimedCheckpoint(timedelta(minutes=run.config["runtime"]["checkpoint_minutes"]), filename="last", **shared)
    # In this order: `last` holds the scores of `best` and `kept`.
    recorder = call(run.config, "gradients", folder=run.folder)
    watch = call(run.config, "detectors", folder=run.folder, tell=run.write_result)
    callbacks = [StepSeeds(run.config["seed"]), meter, recorder, watch, best, *([kept] if kept else []), last, often]
    if "through_time" in run.config:  # speech alone has the group
        callbacks.append(call(run.config, "through_time", folder=run.folder))
    callbacks += [Progress(run.folder, run.score), StopBetweenSteps(run.last_checkpoint)]
    callbacks.append(EpochLines(run.score) if is_quiet(run.config) else RichProgressBar(leave=False))
    return callbacks, best
