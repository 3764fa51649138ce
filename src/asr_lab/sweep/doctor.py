"""Before a sweep: everything that would stop its cells, found in seconds, each distinct thing once.

Each architecture is built on its data, which checks files, transcripts against the tokenizer and lengths against what
the encoder's subsampling leaves of them, and is taken through the largest batch of an epoch, forward and backward.
"""

import copy
import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from asr_lab.errors import AsrLabError
from asr_lab.run import flatten, is_numbered
from asr_lab.sweep.plan import Plan, Planned

# What does not change what a batch goes through.
SAME = ("seed", "clipping", "optimizer", "schedule", "averaging", "max_nonfinite_steps", "decoding", "trainer")
CHECKPOINTS = 3  # best, last, and the one being written
STATE = 3  # times the weights: with an optimizer's two moments
ROOM = 0.8  # of the memory may be filled


class Finding(NamedTuple):
    """What the doctor says of one thing."""

    level: str  # "ok", "warning" or "error"
    what: str
    detail: str
    cells: int  # that it concerns


def examine(plan: Plan, launcher: Any, n_jobs: int) -> Iterator[Finding]:
    """All findings, as they are made. `launcher` is asked whether it can be reached, if it has a `check`."""
    yield _launcher(launcher, len(plan.cells))
    sizes: list[float] = []
    for cells in _distinct(plan):
        yield from _architecture(plan, cells, n_jobs, sizes)
    yield _disk(plan, max(sizes, default=0.0))


def _launcher(launcher: Any, n: int) -> Finding:
    try:
        if hasattr(launcher, "check"):
            launcher.check()
    except AsrLabError as error:
        return Finding("error", "launcher", str(error), n)
    return Finding("ok", "launcher", "there", n)


def _distinct(plan: Plan) -> list[list[Planned]]:
    """Cells that a batch tells nothing apart of"""
    groups: dict[str, list[Planned]] = {}
    for cell in plan.cells:
        flat = plan.configs.flat(cell.cell)
        kept = {k: v for k, v in flat.items() if is_numbered(k) and k.partition(".")[0] not in SAME}
        groups.setdefault(json.dumps(kept, sort_keys=True, default=str), []).append(cell)
    return list(groups.values())


def _architecture(plan: Plan, cells: list[Planned], n_jobs: int, sizes: list[float]) -> Iterator[Finding]:
    wrong = _wrong_optimisation(plan, cells)
    for error, those in wrong.items():
        yield Finding("error", those[0].name, error, len(those))
    out = {cell.name for those in wrong.values() for cell in those}
    cells = [cell for cell in cells if cell.name not in out]
    if not cells:
        return
    name, config = cells[0].name, plan.config(cells[0])
    if "encoder" not in config:
        return
    from asr_lab.build import build

    try:
        parts = build(config)
    except AsrLabError as error:
        yield Finding("error", name, str(error), len(cells))
        return
    sizes.append(4.0 * STATE * sum(p.numel() for p in parts.task.parameters()))
    try:
        yield _batch(parts, config, name, len(cells), n_jobs)
    except (AsrLabError, RuntimeError, ValueError, TypeError) as error:
        text = " ".join(str(error).split())[:300]
        hint = "; a smaller batching.batch_seconds may do" if "memory" in text else ""
        yield Finding("error", name, f"a batch ends with {type(error).__name__}: {text}{hint}", len(cells))


def _wrong_optimisation(plan: Plan, cells: list[Planned]) -> dict[str, list[Planned]]:
    """What the classes of optimizers, schedules, clipping and averaging say of their values -> its cells"""
    from asr_lab.instantiate import check, make

    said: dict[str, str | None] = {}  # by what the groups say
    wrong: dict[str, list[Planned]] = {}
    for cell in cells:
        config = plan.config(cell)
        for group in ("optimizer", "schedule", "clipping", "averaging"):
            node = json.dumps([group, flatten(config.get(group, {}))], sort_keys=True, default=str)
            if node not in said:
                said[node] = None
                try:
                    check(copy.deepcopy(config))
                    make(copy.deepcopy(config), group)
                except AsrLabError as error:
                    said[node] = str(error)
            if (text := said[node]) is not None:
                wrong.setdefault(text, []).append(cell)
                break
    return wrong


def _batch(parts: Any, config: dict[str, Any], name: str, n: int, n_jobs: int) -> Finding:
    """The largest batch of the first epoch, forward and backward"""
    import torch

    from asr_lab.environment import peak_memory_mb

    device = "cuda" if config["trainer"].get("accelerator") != "cpu" and torch.cuda.is_available() else "cpu"
    task = parts.task.to(device).train()
    batch = largest_batch(parts.data)
    feats, lens = batch.feats.to(device), batch.feat_lens.to(device)
    peak_memory_mb(reset=True)
    start = time.monotonic()
    hidden, out_lens = task.encoder(*task.head(feats, lens))
    losses = task.decoder.loss(hidden, out_lens, batch.labels.to(device), batch.label_lens.to(device))
    losses.sum().backward()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds, peak = time.monotonic() - start, peak_memory_mb()
    grads = [p.grad for p in task.parameters() if p.grad is not None]
    bad = [k for k, p in task.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    said = (
        f"{sum(p.numel() for p in task.parameters()) / 1e6:.2f} M parameters, "
        f"largest batch {len(batch.ids)} utterances, "
        f"{batch.seconds:.0f} s: {1000 * seconds:.0f} ms, {peak:.0f} MiB"
    )
    if not losses.isfinite().all():
        return Finding("error", name, f"{said}; its loss is {float(losses.sum()):g}", n)
    if bad or not grads:
        return Finding(
            "error", name, f"{said}; gradients that are not finite: {', '.join(bad[:3]) or 'none at all'}", n
        )
    room = memory_mb(device)
    if peak * (n_jobs if device == "cpu" else 1) > ROOM * room:
        fits = suggested(config["batching"]["batch_seconds"], peak, room / (n_jobs if device == "cpu" else 1))
        return Finding(
            "warning", name, f"{said}; too much for {n_jobs} at once, batching.batch_seconds={fits:g} fits", n
        )
    return Finding("ok", name, said, n)


def largest_batch(data: Any) -> Any:
    """Of the first epoch's, the one with most frames after padding"""
    loader = data.loader("train")
    seconds = loader.dataset.seconds(0)
    batches = loader.sampler.planned(0, None)
    return loader.dataset[0, max(batches, key=lambda b: len(b) * max(seconds[i] for i in b))]


def suggested(batch_seconds: float, peak_mb: float, room_mb: float) -> float:
    """The batch that fills the room, if memory grows with it: two digits, rounded down"""
    value = batch_seconds * ROOM * room_mb / peak_mb
    digits = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.floor(value / digits) * digits


def memory_mb(device: str) -> float:
    """MiB that are free now"""
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0] / 2**20
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return math.inf


def _disk(plan: Plan, largest: float) -> Finding:
    folder = plan.folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    needed = CHECKPOINTS * largest * len(plan.cells)
    said = f"about {needed / 2**30:.2f} GiB of checkpoints, {free / 2**30:.1f} GiB free in {folder}"
    return Finding("error" if needed > free else "ok", "disk", said, len(plan.cells))
