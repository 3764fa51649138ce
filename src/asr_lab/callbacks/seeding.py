"""Random numbers that depend on where training is, not on how it got there."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer


class StepSeeds(Callback):
    """Seeds PyTorch by (seed, step, rank) before every training batch.

    A resumed run then draws the same dropout masks as an uninterrupted one, with no generator state to save; and cells
    of a grid that share a seed share their masks where their shapes agree.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        step = trainer.current_epoch * 1_000_003 + batch_idx  # counts accumulated batches too, unlike global_step
        torch.manual_seed((self.seed * 2_147_483_629 + step * 4_096 + trainer.global_rank) % 2**63)
