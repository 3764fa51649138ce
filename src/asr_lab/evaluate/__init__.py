"""Score a finished run's checkpoint on named splits, apart from training."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asr_lab.build import Parts, build
from asr_lab.data.manifest import Utterance
from asr_lab.errors import RunError, nearest
from asr_lab.files import write_json, write_jsonl
from asr_lab.metrics.wer import ErrorRates
from asr_lab.run import Run, now
from asr_lab.task import SpeechTask
from asr_lab.types import Batch


def evaluate(run: Run, splits: list[str], checkpoint: str = "best") -> dict[str, dict[str, float]]:
    """{split: {"wer", "cer", "loss", "utterances"}} of a run's `best` or `last` checkpoint.

    Writes `evaluate/<checkpoint>.<split>.json` and `.jsonl` (hypotheses) in the run's folder; result.json is untouched.

    Raises:
        RunError: no such checkpoint or split.
    """
    parts, step = opened(run, checkpoint)
    check_splits(run, parts, splits)
    answers = {}
    for split in splits:
        scores, rows = score(parts, split)
        answers[split] = scores
        folder = run.folder / "evaluate"
        write_jsonl(folder / f"{checkpoint}.{split}.jsonl", rows)
        write_json(folder / f"{checkpoint}.{split}.json", {**scores, "step": step, "time": now()})
    return answers


def checkpoint_path(run: Run, checkpoint: str) -> Path:
    """
    Raises:
        RunError: the run has no checkpoint of that name.
    """
    path = run.checkpoints / f"{checkpoint}.ckpt"
    if not path.exists():
        have = sorted(p.stem for p in run.checkpoints.glob("*.ckpt"))
        raise RunError(f"{run.folder}: no checkpoint '{checkpoint}'{nearest(checkpoint, have) or '; none was saved'}")
    return path


def opened(run: Run, checkpoint: str) -> tuple[Parts, int]:
    """(data and task with the weights of a checkpoint, in evaluation; the step at which it was saved).

    Raises:
        RunError: there is no such checkpoint, or it does not fit the run's configuration.
    """
    path = checkpoint_path(run, checkpoint)
    parts = build(run.config)
    saved = read_checkpoint(path)
    restore(parts.task, saved, path)
    return parts, saved["global_step"]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """
    Raises:
        RunError: it cannot be read, or lacks what a checkpoint has.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=False)
        return {key: saved[key] for key in ("state_dict", "global_step", "belongings")}
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise _unusable(path, error) from None


def restore(task: SpeechTask, saved: dict[str, Any], path: Path) -> None:
    """The task with the weights of a checkpoint that was read, in evaluation.

    Raises:
        RunError: they do not fit.
    """
    try:
        task.load_state_dict(saved["state_dict"])
    except RuntimeError as error:
        raise _unusable(path, error) from None
    task.eval()


def _unusable(path: Path, error: Exception) -> RunError:
    why = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
    return RunError(f"{path}: cannot be loaded ({why}); train the run again")


def check_splits(run: Run, parts: Parts, splits: list[str]) -> None:
    """
    Raises:
        RunError: the run's corpus has no such split.
    """
    for split in splits:
        if split not in parts.data.datasets:
            raise RunError(f"{run.folder}: no split '{split}'{nearest(split, parts.data.datasets)}")


def encoded(parts: Parts, split: str) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """(batch, hidden (B,U,D), lens (B,)) of a split without augmentation, with the task's present weights."""
    dataset = parts.data.plain(split)
    for item in parts.data.sampler(dataset, shuffle=False):
        batch = dataset[item].to(parts.task.device)
        yield batch, *parts.task.encode(batch)


@torch.inference_mode()
def score(parts: Parts, split: str) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """(corpus scores, one row an utterance) of the task's present weights on one split, without augmentation."""
    task = parts.task.eval()
    rates, rows, loss, n_labels = ErrorRates(), [], 0.0, 0
    for batch, hidden, lens in encoded(parts, split):
        loss += float(task.decoder.loss(hidden, lens, batch.labels, batch.label_lens).sum())  # pyright: ignore
        n_labels += int(batch.label_lens.sum())
        rows += task.transcribe(batch, hidden, lens)
    rates.update(rows)
    scores = {k: float(v) for k, v in rates.compute().items()}
    scores |= {"loss": loss / max(1, n_labels), "utterances": len(rows)}
    return scores, with_speakers(rows, parts.data.corpus.splits[split])


def with_speakers(rows: list[dict[str, Any]], utterances: list[Utterance]) -> list[dict[str, Any]]:
    """The rows in the corpus's order, with speaker and duration."""
    by_id = {row["id"]: row for row in rows}
    return [
        {**by_id[u.id], "speaker": u.speaker, "duration": u.duration} for u in utterances if u.id in by_id
    ]  # fmt: skip


def gather_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all processes of a distributed run."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, rows)
    return [row for part in everyone for row in part]
