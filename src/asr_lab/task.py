"""The training task of speech recognition."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from asr_lab.base_task import Task
from asr_lab.clipping import Clipper
from asr_lab.decoders import Decoder
from asr_lab.decoding import Search
from asr_lab.distill import Distillation
from asr_lab.encoders import Encoder
from asr_lab.errors import DataError
from asr_lab.frontend import Head
from asr_lab.lm import Fusion, NoFusion
from asr_lab.metrics.wer import ErrorRates, utterance_errors
from asr_lab.optim.schedules import Schedule
from asr_lab.text.tokenizer import Tokenizer
from asr_lab.types import Batch, Hypothesis


class SpeechTask(Task):
    """Encoder and decoder trained on batches of features; scored on words and characters.

    Logged keys beside those of every task: `<stage>/loss` (nats per label), `<stage>/wer`, `cer` and `ser`; with
    encoder/filter=per_utterance, `train/filtered`, how many utterances the layers left out of the step (of this rank).
    """

    unit = "audio_seconds"

    def __init__(
        self,
        head: Head,
        encoder: Encoder,
        decoder: Decoder,
        search: Search,
        lm: Fusion | NoFusion,
        distill: Distillation,
        tokenizer: Tokenizer,
        optimizer: Callable[..., torch.optim.Optimizer],
        weight_decay: float,
        schedule: Schedule,
        clipper: Clipper,
        max_nonfinite_steps: int,
        score: str,
    ):
        super().__init__(optimizer, weight_decay, schedule, clipper, max_nonfinite_steps)
        self.head = head
        self.encoder, self.decoder, self.tokenizer = encoder, decoder, tokenizer
        # None of them is a module: the weights of a language model or a teacher are not this task's to train and save.
        self.search, self.lm = search, lm
        self.distill: Distillation = distill
        self.belongings["tokenizer"] = tokenizer
        self.score_by = score
        self.val_rates, self.test_rates = ErrorRates(), ErrorRates()

    def amount(self, batch: Batch) -> float:
        return batch.seconds

    def step(self, batch: Batch, stage: str) -> Tensor:
        """Loss of a batch in nats per label; in val and test also decoded and counted."""
        hidden, lens = self.encode(batch)
        losses = self.decoder.loss(hidden, lens, batch.labels, batch.label_lens)  # (B,)
        if torch.isinf(losses).any() and torch.isfinite(hidden).all():
            bad = ", ".join(i for i, bad in zip(batch.ids, torch.isinf(losses).tolist(), strict=True) if bad)
            raise DataError(
                f"no alignment for {bad}: fewer encoder frames than labels need; `asr-lab data check` tells"
            )
        # Per label, not per utterance: the scale of gradients then depends little on how long the utterances are. With
        # labels as the weight, Lightning's mean over batches is the mean over the corpus.
        n_labels = batch.label_lens.sum()
        is_train, terms = stage == "train", dict(getattr(self.decoder, "terms", {}))
        if is_train:
            losses, more = self.distill(losses, self.decoder, batch, hidden, lens)
            terms |= more
        loss = losses.sum() / n_labels
        logged = {"loss": loss} | {f"loss_{k}": v.sum() / n_labels for k, v in terms.items()}
        self.log_dict(
            {f"{stage}/{k}": v for k, v in logged.items()},
            on_step=is_train,
            on_epoch=not is_train,
            batch_size=int(n_labels),
            sync_dist=not is_train,
        )
        if stage != "train":
            self.score(batch, hidden, lens, stage)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        chosen = getattr(self.encoder, "filter", None)
        if hasattr(chosen, "take"):
            self.log("train/filtered", chosen.take().float(), on_step=True, on_epoch=False)  # pyright: ignore

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """hidden (B,U,D) and its lengths (B,)"""
        return self.encoder(*self.head(batch.feats, batch.feat_lens))

    def score(self, batch: Batch, hidden: Tensor, lens: Tensor, stage: str) -> None:
        """Decode a batch, add its errors to the stage's metric and its rows to `rows`."""
        rows = self.transcribe(batch, hidden, lens)
        self.rates(stage).update(rows)
        self.rows[stage] += rows

    def transcribe(self, batch: Batch, hidden: Tensor, lens: Tensor) -> list[dict[str, Any]]:
        """One row an utterance: id, reference, hypothesis and their errors."""
        return self.as_rows(batch, self.decode(hidden, lens))

    def as_rows(self, batch: Batch, decoded: list[list[Hypothesis]]) -> list[dict[str, Any]]:
        """The best of each utterance's hypotheses beside its reference, counted."""
        texts = [self.text(found[0]) for found in decoded]
        return [
            {"id": i, "ref": ref, "hyp": hyp, **utterance_errors(ref, hyp, self.score_by)}
            for i, ref, hyp in zip(batch.ids, batch.texts, texts, strict=True)
        ]

    def decode(self, hidden: Tensor, lens: Tensor) -> list[list[Hypothesis]]:
        """(B,U,D), (B,) -> each utterance's hypotheses, the best first, a language model's opinion included"""
        return [self.lm.rescored(found) for found in self.search(hidden, lens)]

    def text(self, hypothesis: Hypothesis) -> str:
        return " ".join(self.tokenizer.decode(hypothesis.labels).split())
