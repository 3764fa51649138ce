"""Quiet mode: one plain line an epoch, for log files."""

import sys
import time

from pytorch_lightning import Callback, LightningModule, Trainer

from asr_lab.run import show_score


class EpochLines(Callback):
    """`epoch 3/50  step 240  loss 1.234  val/wer 45.2 %  lr 1.0e-03  12 s`; val/cer or val/ppl where that scores."""

    def __init__(self, score: str) -> None:
        self._score = score
        self._start = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", f"step {trainer.global_step}"]
        if "train/loss" in metrics:
            parts.append(f"loss {metrics['train/loss']:.3f}")
        parts.append(f"val/loss {metrics.get('val/loss', float('nan')):.3f}")
        key = f"val/{self._score}"
        parts.append(f"{key} {show_score(self._score, metrics.get(key, float('nan')))}")
        if "train/lr" in metrics:
            parts.append(f"lr {metrics['train/lr']:.1e}")
        parts.append(f"{time.monotonic() - self._start:.0f} s")
        print("  ".join(parts), file=sys.stderr, flush=True)
