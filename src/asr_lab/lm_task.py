"""The training task of language models."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from asr_lab.base_task import Task
from asr_lab.clipping import Clipper
from asr_lab.lm.neural import NeuralLm
from asr_lab.metrics.perplexity import Perplexity
from asr_lab.optim.schedules import Schedule
from asr_lab.text.tokenizer import Tokenizer
from asr_lab.types import TextBatch


class LmTask(Task):
    """A language model trained on sentences, one label after the other.

    Logged keys beside those of every task: `<stage>/loss` (nats per label, the end of a sentence being one),
    `<stage>/ppl`, `<stage>/ppl_word`.
    """

    unit = "labels"

    def __init__(
        self,
        model: NeuralLm,
        tokenizer: Tokenizer,
        optimizer: Callable[..., torch.optim.Optimizer],
        weight_decay: float,
        schedule: Schedule,
        clipper: Clipper,
        max_nonfinite_steps: int,
    ):
        super().__init__(optimizer, weight_decay, schedule, clipper, max_nonfinite_steps)
        self.model = model
        self.belongings["tokenizer"] = tokenizer
        self.val_rates, self.test_rates = Perplexity(), Perplexity()

    def amount(self, batch: TextBatch) -> float:
        return batch.n_labels

    def step(self, batch: TextBatch, stage: str) -> Tensor:
        """Loss of a batch in nats per label; in val and test the sentences are also counted."""
        losses = self.model.loss(batch.labels, batch.label_lens)  # (B,)
        loss = losses.sum() / batch.n_labels
        if stage == "train":
            self.log("train/loss", loss, on_step=True, on_epoch=False)
        else:  # its loss is one of the rates
            rows = sentences(batch, losses)
            self.rates(stage).update(rows)
            self.rows[stage] += rows
        return loss


def sentences(batch: TextBatch, losses: Tensor) -> list[dict[str, Any]]:
    """One row a sentence: id, text, -log p in nats, and how many labels and words it has, ends included."""
    rows = zip(batch.ids, batch.texts, losses.tolist(), batch.label_lens.tolist(), strict=True)
    return [
        {"id": i, "text": text, "nats": nats, "labels": n + 1, "words": len(text.split()) + 1}
        for i, text, nats, n in rows
    ]
