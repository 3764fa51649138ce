"""One run, from its frozen configuration to its result. A cell's process is `python -m asr_lab.train FOLDER`."""

import faulthandler
import logging
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from asr_lab import ledger
from asr_lab.endings import ending
from asr_lab.environment import code_digest, environment, git_state, peak_memory_mb
from asr_lab.errors import AsrLabError, DiskFullError, PausedError, RankLostError, is_disk_full
from asr_lab.files import remove_temporaries, write_jsonl, write_text
from asr_lab.hold import BusyError
from asr_lab.lean_imports import import_leanly
from asr_lab.process import (
    ignore_signals,
    is_main_process,
    is_quiet,
    keep_freed_memory,
    n_threads,
    quieten,
    stop_on_signals,
)
from asr_lab.run import Run, now

log = logging.getLogger(__name__)

BUSY = 3  # exit statuses
FULL = 4


def train(run: Run) -> dict[str, Any]:
    """Train a frozen run, or go on with it from its last checkpoint, and score its best one. Returns result.json.

    A run that is done already is not touched. Whatever ends a training early is in result.json as status and reason.

    Raises:
        AsrLabError: something a person can mend; the run's status is `failed` (or `exploded`).
    """
    if not is_main_process():  # another rank of a run that the first one holds and writes
        return _train(run, time.monotonic(), [])
    with run.locked():
        if run.is_done():
            result = run.result()
            assert result
            log.info("%s: done already, nothing to do", run.folder)
            return result
        start = time.monotonic()
        remove_temporaries(run.folder)
        remove_temporaries(run.checkpoints)
        tell = ledger.of_run(run.folder)
        run.write_result(status="running", reason=None, started=now(), git=git_state(), code=code_digest())
        tell("running")
        watchers: list[Any] = []  # loggers beside the run's own files
        try:
            result = _train(run, start, watchers)
        except BaseException as error:
            error, status, reason = ending(error, run)
            _try_to_write(run, status=status, reason=reason, finished=now())
            tell(status, reason)
            raise error
        finally:  # the result is written
            _close(watchers)
        tell(
            "done",
            metric=run.score,
            score=result["metrics"].get(f"test/{run.score}"),
            seconds=result["seconds"]["total"],
        )
        return result


def _close(watchers: list[Any]) -> None:
    """None of them may end a training."""
    for watcher in watchers:
        try:
            if hasattr(watcher, "close"):
                watcher.close()
        except Exception as error:
            log.warning("%s: not closed properly (%s)", type(watcher).__name__, " ".join(str(error).split())[:200])


def _train(run: Run, start: float, watchers: list[Any]) -> dict[str, Any]:
    config = run.config
    _set_up(config)
    from asr_lab.build import make
    from asr_lab.build_callbacks import build_callbacks
    from asr_lab.callbacks.checkpoint import place_of, scored_weights, settle
    from asr_lab.callbacks.meter import Meter
    from asr_lab.tracking import RunInfo
    from asr_lab.tracking.jsonl import JsonlLogger

    parts = _built(run)
    is_main = is_main_process()
    if is_main:
        run.write_result(score=run.score, environment=environment(), **_before_training(run, parts))
    resume = run.last_checkpoint if run.last_checkpoint.exists() else None
    resume_step, place = place_of(resume) if resume else (0, None)
    info = RunInfo(run.fingerprint, run.name, config["experiment"], run.factors, config, run.folder)
    watchers += make(config, "logger")(run=info) if is_main else []
    files = JsonlLogger(run.metrics_file, resume_step) if is_main else None
    meter = Meter()
    callbacks, best = build_callbacks(run, meter, parts.task.averaging)
    trainer = make(config, "trainer")(
        callbacks=callbacks,
        logger=[files, *watchers] if files else False,
        default_root_dir=str(run.folder),
        enable_progress_bar=not is_quiet(config),
    )
    rank, world = trainer.global_rank, trainer.world_size
    loaders = {s: parts.data.loader(s, rank, world) for s in ("train", "val", "test")}
    if place:
        log.info("going on from step %d", resume_step)
        # Lightning would, but not after a schedule has asked for the number of steps.
        loaders["train"].load_state_dict(place)
    trainer.fit(parts.task, loaders["train"], loaders["val"], ckpt_path=resume, weights_only=False)
    if trainer.interrupted:
        raise KeyboardInterrupt
    # Read now: scoring restores callbacks and counts of the best checkpoint.
    training = {
        "seconds": {"train": round(meter.train_seconds, 3), "data": round(meter.data_seconds, 3)},
        f"{parts.task.unit}_per_second": round(meter.amount_per_second, 2),
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
    }
    counts = parts.task.counts
    if run.kind == "toy":  # its best by the exact objective would hide what a step has ruined
        trainer.save_checkpoint(run.best_checkpoint)
    settle(trainer, parts.task, loaders["val"], best, run.best_checkpoint)
    metrics, _ = score_best(run, parts, trainer, loaders)
    counted = {"train/clipped": counts["clipped"] / max(1, counts["steps"]), "train/nonfinite": counts["nonfinite"]}
    training["seconds"]["total"] = round(time.monotonic() - start, 3)
    result = {
        "status": "done",
        "metrics": metrics | counted,
        "parameters": sum(p.numel() for p in parts.task.parameters()),
        **training,
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "resumed_at_step": resume_step,
        **scored_weights(run.best_checkpoint),
        "gradients": next(c for c in callbacks if hasattr(c, "summary")).summary(counts),  # the recorder's
        "finished": now(),
    }
    if trainer.is_global_zero:
        result = run.write_result(**result)
        best.clear()
    return result


def _set_up(config: dict[str, Any]) -> None:
    if config["runtime"]["fast_malloc"]:
        keep_freed_memory()  # before there is much to keep
    import pytorch_lightning as pl
    import torch

    quieten()
    torch.set_num_threads(n_threads(config["runtime"]["n_threads"]))
    pl.seed_everything(config["seed"], verbose=False)
    peak_memory_mb(reset=True)


def _built(run: Run) -> Any:
    from asr_lab.build import build, make
    from asr_lab.build_lm import build_lm
    from asr_lab.build_toy import build_toy

    averaging = make(run.config, "averaging")
    if run.kind != "speech":
        parts = {"lm": build_lm, "toy": build_toy}[run.kind](run.config)
    else:
        parts = build(run.config)
        parts.task.distill.prepare(run.config, parts)
    parts.task.averaging = averaging
    return parts


def _before_training(run: Run, parts: Any) -> dict[str, Any]:
    """What result.json can say of the data and the model."""
    if run.kind != "speech":
        return {"data": {"digest": parts.data.digests()}} if run.kind == "lm" else {}
    from asr_lab.cost import cost, frames_per_second

    head, data = parts.task.head, parts.data
    rate = frames_per_second(data.pipeline.frontend, head, data.corpus.sample_rate)
    encoder = cost(parts.task.encoder, head.out_dim, rate)
    return {"data": {"digest": data.corpus.digests(), "manifest": str(data.corpus.manifest)}, "encoder": encoder}


def score_best(run: Run, parts: Any, trainer: Any, loaders: dict[str, Any]) -> tuple[dict[str, float], dict[str, list]]:
    """Score val and test with the best checkpoint and write a row of each utterance. Returns metrics and rows."""
    from asr_lab.evaluate import gather_rows, with_speakers
    from asr_lab.report.confusion import confusion

    metrics: dict[str, float] = {}
    rows: dict[str, list] = {}
    for split, score in (("val", trainer.validate), ("test", trainer.test)):
        scored = score(parts.task, loaders[split], ckpt_path=run.best_checkpoint, verbose=False, weights_only=False)
        metrics |= {k: float(v) for k, v in scored[0].items() if k.startswith(f"{split}/")}
        if run.kind == "toy":  # nothing to say of single examples
            rows[split] = []
            continue
        rows[split] = with_speakers(gather_rows(parts.task.rows[split]), parts.data.corpus.splits[split])
        if trainer.is_global_zero:
            write_jsonl(run.rows_file(split), rows[split])
            if getattr(getattr(parts.task, "decoder", None), "one_label", False):
                write_text(run.confusion_file(split), confusion(rows[split]).csv())
    return metrics, rows


def _try_to_write(run: Run, **changes: Any) -> None:
    """A result that cannot be written (disk full) must not hide the error that is being reported."""
    try:
        run.write_result(**changes)
    except (AsrLabError, OSError) as error:
        log.warning("%s", error)


def main(folder: str) -> int:
    """Exit status of one cell's process: 0 done, 2 for what a person can mend, 3 held by another process, 4 on a disk
    that is full or read-only, 128 + a signal's number, 1 for anything else."""
    stop_on_signals()  # first of all: what comes next imports for seconds
    if not faulthandler.is_enabled():
        faulthandler.enable()  # a library that crashes says where
    import_leanly()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        train(Run.open(Path(folder)))
    except PausedError as pause:
        _say(str(pause))
    except AsrLabError as error:
        _say(f"asr-lab: {error}")
        if isinstance(error, RankLostError):
            return 128 + signal.SIGTERM
        return {BusyError: BUSY, DiskFullError: FULL}.get(type(error), 2)
    except OSError as error:  # before there was a run to say it of
        if not is_disk_full(error):
            raise
        _say(f"asr-lab: {error}")
        return FULL
    return 0


def _say(line: str) -> None:
    with suppress(OSError):  # train.log lies on the same disk; the exit status has to be the right one
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        code = main(sys.argv[1])
    finally:
        ignore_signals()
    sys.exit(code)
