"""What is kept of a step that was not finite, and the verdict: one sentence that says where it came from."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from asr_lab.errors import DataError
from asr_lab.files import write_atomic, write_json
from asr_lab.gradients.replay import Micro, Replay, replay

# Of names in one sentence.
SHOWN = 5


class Verdict(NamedTuple):
    """Where the first number that is not finite came from."""

    # data, weights, forward, backward, precision, not_reproduced
    kind: str
    text: str
    replay: Replay | None = None  # in float32
    as_trained: Replay | None = None  # in the training's own precision, where float32 was finite


def judge(
    task: Any,
    micros: Sequence[Micro],
    precision: str = "32-true",
    context: Callable[[], AbstractContextManager] = nullcontext,
    scale: float = 1.0,
) -> Verdict:
    """The verdict on a step of `task` whose weights have not moved since; nothing of the task changes.

    Args:
        precision: Lightning's word for the training's.
        context: in which the training's forward pass runs.
        scale: of the loss, in the training.
    """
    weights = [n for n, p in task.named_parameters() if not p.isfinite().all()]
    if weights:
        return Verdict("weights", f"the weights themselves are not finite: {_list(weights)}")
    ids = [i for micro in micros for i in not_finite(micro.batch)]
    if ids:
        return Verdict("data", f"in the data: features of {_list(ids)} are not finite")
    device = next(task.parameters()).device.type
    wide = replay(task, micros, lambda: torch.autocast(device, enabled=False), float32=True)
    if not wide.finite:
        return Verdict(*_told(wide), wide)
    if precision == "32-true":
        return Verdict("not_reproduced", "not reproduced: finite when the step is taken again with these batches", wide)
    narrow = replay(task, micros, context, scale)
    where = f"; in {precision} it comes up {_told(narrow)[1]}" if not narrow.finite else ""
    return Verdict("precision", f"a precision matter: finite in float32{where}", wide, narrow)


def _told(found: Replay) -> tuple[str, str]:
    """(kind, sentence) of a replay that was not finite"""
    of = f" for {_list(found.ids)}" if found.ids else ""
    if found.module:
        return "forward", f"in the forward pass: the output of {found.module}{of}"
    if found.error:
        return "forward", f"in the forward pass: {found.error}"
    if found.loss_only:
        return "forward", f"in the forward pass: the loss is {found.loss}, every module's output before it is finite"
    near = f", near the output of {found.gradient_of}" if found.gradient_of else ""
    if found.function:
        line = f" ({found.line})" if found.line else ""
        return "backward", f"in the backward pass: {found.function} gives what is not finite{line}{near}"
    if found.gradient_of:
        return "backward", f"in the backward pass: the gradient that reaches the output of {found.gradient_of}"
    return "backward", f"in the backward pass: the gradient of {_list(found.parameters)}"


def not_finite(batch: Any) -> list[str]:
    """Ids of a batch's utterances with a feature that is not finite"""
    feats = getattr(batch, "feats", None)
    if feats is None:
        return []
    bad = ~feats.flatten(1).isfinite().all(1)
    return [i for i, is_bad in zip(batch.ids, bad.tolist(), strict=True) if is_bad]


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def write_incident(
    folder: Path,
    report: dict[str, Any],
    steps: Sequence[int],
    norms: np.ndarray,
    layers: Sequence[str],
    task: Any,
    micros: Sequence[Micro],
) -> Path:
    """`folder` with report.json, norms.npz, batch.pt and weights.pt: all of it or nothing; an older one is replaced.

    Args:
        norms: (N,L) gradient norms of the last N `steps`, before clipping.

    Raises:
        DiskFullError, OSError: it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        write_json(made / "report.json", report)
        arrays: dict[str, Any] = {"steps": np.array(steps), "norms": norms, "layers": np.array(layers, dtype=str)}
        write_atomic(made / "norms.npz", lambda f: np.savez_compressed(f, **arrays))
        batches = [{"batch": m.batch.to("cpu"), "seed": m.seed} for m in micros]
        write_atomic(made / "batch.pt", lambda f: torch.save(batches, f))
        state = {k: v.cpu() for k, v in task.state_dict().items()}
        saved = {"state_dict": state, "belongings": getattr(task, "belongings", {})}
        write_atomic(made / "weights.pt", lambda f: torch.save(saved, f))
        os.chmod(made, 0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(made, folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return folder


def read_incident(folder: Path) -> tuple[list[Micro], dict[str, Any]]:
    """(the step's batches, what weights.pt holds)

    Raises:
        DataError: files are missing or cannot be read.
    """
    try:
        batches = torch.load(folder / "batch.pt", map_location="cpu", weights_only=False)
        weights = torch.load(folder / "weights.pt", map_location="cpu", weights_only=False)
        return [Micro(b["batch"], b["seed"]) for b in batches], weights
    except Exception as error:  # torn files raise many kinds
        raise DataError(f"{folder}: not a step's forensic folder ({error})") from error


__all__ = ["Verdict", "judge", "not_finite", "read_incident", "write_incident"]
