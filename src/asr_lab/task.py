"""The training task: one step for three stages, the clipping hook and the optimizer hook."""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from asr_lab.clipping import Clipper, global_norm, gradients
from asr_lab.decoders import Decoder
from asr_lab.decoding import Search
from asr_lab.encoders import Encoder
from asr_lab.errors import DataError, ExplodedError
from asr_lab.frontend import Head
from asr_lab.lm import Fusion, NoFusion
from asr_lab.metrics.wer import ErrorRates, utterance_errors
from asr_lab.optim.groups import parameter_groups
from asr_lab.text.tokenizer import Tokenizer
from asr_lab.types import Batch, Hypothesis


class SpeechTask(LightningModule):
    """Encoder and decoder trained on batches of features; scored on words and characters.

    Logged keys: `<stage>/loss` (nats per label), `<stage>/wer`, `<stage>/cer`, `<stage>/ser` for val and test, and of
    every training step `train/grad_norm`, `train/grad_norm_after`, `train/clipped`, `train/lr`.
    """

    def __init__(
        self,
        head: Head,
        encoder: Encoder,
        decoder: Decoder,
        search: Search,
        lm: Fusion | NoFusion,
        tokenizer: Tokenizer,
        optimizer: Callable[..., torch.optim.Optimizer],
        weight_decay: float,
        schedule: Callable[..., Callable[[int], float]],
        clipper: Clipper,
        max_nonfinite_steps: int,
        score: str,
    ):
        super().__init__()
        self.head = head
        self.encoder, self.decoder, self.tokenizer = encoder, decoder, tokenizer
        # Neither is a module: a language model's weights are not this task's to train and to save.
        self.search, self.lm = search, lm
        # What using the trained weights takes beside them; saved in every checkpoint.
        self.belongings: dict[str, Any] = {"tokenizer": tokenizer}
        self.make_optimizer, self.weight_decay, self.make_schedule = optimizer, weight_decay, schedule
        self.clipper, self.max_nonfinite_steps, self.score_by = clipper, max_nonfinite_steps, score
        self.val_rates, self.test_rates = ErrorRates(), ErrorRates()  # one a split, reset after each epoch
        self.hyps: dict[str, list[dict[str, Any]]] = {"val": [], "test": []}
        self.validated_step = -1
        # Counts over the whole training, restored from a checkpoint: steps taken, clipped, skipped for non-finite.
        self.counts = {"steps": 0, "clipped": 0, "nonfinite": 0, "nonfinite_in_a_row": 0}

    # One step for three stages

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.step(batch, "test")

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
        loss = losses.sum() / n_labels
        is_train = stage == "train"
        terms = {f"loss_{k}": v.sum() / n_labels for k, v in getattr(self.decoder, "terms", {}).items()}
        self.log_dict(
            {f"{stage}/{k}": v for k, v in {"loss": loss, **terms}.items()},
            on_step=is_train,
            on_epoch=not is_train,
            batch_size=int(n_labels),
            sync_dist=not is_train,
        )
        if stage != "train":
            self.score(batch, hidden, lens, stage)
        return loss

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """hidden (B,U,D) and its lengths (B,)"""
        return self.encoder(*self.head(batch.feats, batch.feat_lens))

    def score(self, batch: Batch, hidden: Tensor, lens: Tensor, stage: str) -> None:
        """Decode a batch, add its errors to the stage's metric and its rows to `hyps`."""
        rows = self.transcribe(batch, hidden, lens)
        self.rates(stage).update(rows)
        self.hyps[stage] += rows

    def rates(self, stage: str) -> ErrorRates:
        return self.val_rates if stage == "val" else self.test_rates

    def transcribe(self, batch: Batch, hidden: Tensor, lens: Tensor) -> list[dict[str, Any]]:
        """One row an utterance: id, reference, hypothesis and their errors."""
        return self.rows(batch, self.decode(hidden, lens))

    def rows(self, batch: Batch, decoded: list[list[Hypothesis]]) -> list[dict[str, Any]]:
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

    def on_validation_epoch_start(self) -> None:
        self.hyps["val"].clear()

    def on_test_epoch_start(self) -> None:
        self.hyps["test"].clear()

    def on_validation_epoch_end(self) -> None:
        self._log_rates("val")
        if self.trainer.state.fn == "fit":
            self.validated_step = self.trainer.global_step

    def on_test_epoch_end(self) -> None:
        self._log_rates("test")

    def _log_rates(self, stage: str) -> None:
        metric = self.rates(stage)
        for name, value in metric.compute().items():
            # The metric has summed over processes itself; they are on the bar because one chooses the checkpoint.
            self.log(f"{stage}/{name}", value, prog_bar=stage == "val", rank_zero_only=False, sync_dist=False)
        metric.reset()

    # Clipping and optimisation

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Lightning's hook between backward and the update, after gradients were unscaled: all parameter groups."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.counts["steps"] += 1
        # Looked for before clipping: scaling by a NaN norm would spread one bad element over every weight.
        norm = global_norm(gradients(parameters))
        if not torch.isfinite(norm):
            self._skip_step(parameters, norm)
            return
        self.counts["nonfinite_in_a_row"] = 0
        report = self.clipper(parameters)
        self.counts["clipped"] += int(report.clipped)
        self.log_dict(
            {
                "train/grad_norm": report.norm_before,
                "train/grad_norm_after": report.norm_after,
                "train/clipped": report.clipped.float(),
                "train/lr": optimizer.param_groups[0]["lr"],
            },
            on_step=True,
            on_epoch=False,
        )

    def _skip_step(self, parameters: list[Tensor], norm: Tensor) -> None:
        """Without gradients an optimizer leaves weights, moments and decay alone."""
        for p in parameters:
            p.grad = None
        self.counts["nonfinite"] += 1
        self.counts["nonfinite_in_a_row"] += 1
        self.log("train/nonfinite", 1.0, on_step=True, on_epoch=False)
        if self.counts["nonfinite_in_a_row"] > self.max_nonfinite_steps:
            raise ExplodedError(
                f"gradient norm {norm.item()} in {self.counts['nonfinite_in_a_row']} steps in a row (at step "
                f"{self.counts['steps']}); lower optimizer.lr, or choose a smaller clipping.threshold"
            )

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(parameter_groups(self, self.weight_decay))
        factor = self.make_schedule(total_steps=int(self.trainer.estimated_stepping_batches))
        scheduler = {"scheduler": LambdaLR(optimizer, factor), "interval": "step", "name": "lr"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device, non_blocking=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["counts"] = dict(self.counts)
        checkpoint["belongings"] = self.belongings
        checkpoint["clipper"] = self.clipper.state_dict() if hasattr(self.clipper, "state_dict") else None  # pyright: ignore

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.counts |= checkpoint["counts"]
        if checkpoint["clipper"] is not None:
            self.clipper.load_state_dict(checkpoint["clipper"])  # pyright: ignore
