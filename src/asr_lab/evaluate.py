"""Score a finished run's checkpoint on named splits, apart from training."""

from typing import Any

import torch

from asr_lab.build import Parts, build
from asr_lab.data.manifest import Utterance
from asr_lab.errors import RunError, nearest
from asr_lab.files import write_json, write_jsonl
from asr_lab.metrics.wer import ErrorRates
from asr_lab.run import Run, now


def evaluate(run: Run, splits: list[str], checkpoint: str = "best") -> dict[str, dict[str, float]]:
    """{split: {"wer", "cer", "loss", "utterances"}} of a run's `best` or `last` checkpoint.

    Writes `evaluate/<checkpoint>.<split>.json` and `.jsonl` (hypotheses) in the run's folder; result.json is untouched.

    Raises:
        RunError: no such checkpoint or split.
    """
    path = run.checkpoints / f"{checkpoint}.ckpt"
    if not path.exists():
        have = sorted(p.stem for p in run.checkpoints.glob("*.ckpt"))
        raise RunError(f"{run.folder}: no checkpoint '{checkpoint}'{nearest(checkpoint, have) or '; none was saved'}")
    parts = build(run.config)
    unknown = [s for s in splits if s not in parts.data.datasets]
    if unknown:
        raise RunError(f"{run.folder}: no split '{unknown[0]}'{nearest(unknown[0], parts.data.datasets)}")
    saved = torch.load(path, map_location="cpu", weights_only=False)
    parts.task.load_state_dict(saved["state_dict"])
    answers = {}
    for split in splits:
        scores, rows = score(parts, split)
        answers[split] = scores
        folder = run.folder / "evaluate"
        write_jsonl(folder / f"{checkpoint}.{split}.jsonl", rows)
        write_json(folder / f"{checkpoint}.{split}.json", {**scores, "step": saved["global_step"], "time": now()})
    return answers


@torch.inference_mode()
def score(parts: Parts, split: str) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """(corpus scores, one row an utterance) of the task's present weights on one split, without augmentation."""
    task, data = parts.task.eval(), parts.data
    dataset = data.plain(split)
    rates, rows, loss, n_labels = ErrorRates(), [], 0.0, 0
    for item in data.sampler(dataset, shuffle=False):
        batch = dataset[item]
        hidden, lens = task.encode(batch)
        loss += float(task.decoder.loss(hidden, lens, batch.labels, batch.label_lens).sum())  # pyright: ignore
        n_labels += int(batch.label_lens.sum())
        rows += task.transcribe(batch, hidden, lens)
    rates.update(rows)
    scores = {k: float(v) for k, v in rates.compute().items()}
    scores |= {"loss": loss / max(1, n_labels), "utterances": len(rows)}
    return scores, with_speakers(rows, dataset.utterances)


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
