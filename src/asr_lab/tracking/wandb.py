"""Weights & Biases, offline or online, through Lightning's WandbLogger; it never ends a training."""

import logging
import os
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger

from asr_lab.tracking import RunInfo

log = logging.getLogger(__name__)

# Summaries hold the best value of these and the last of all others.
BEST = {"val/wer": "min", "val/cer": "min", "val/ppl": "min", "val/loss": "min"}


def wandb(run: RunInfo, project: str, offline: bool, init_timeout_s: float) -> list[Logger]:
    """A run with group = experiment, job type = encoder, model or landscape, tags = factors, id = fingerprint and the
    resolved config.

    When the service cannot be reached within `init_timeout_s`, the run is logged offline instead (a line says so);
    `wandb sync` uploads it later.
    """
    try:
        return [_start(run, project, offline, init_timeout_s)]
    except Exception as error:  # the client raises many kinds, none of which may end a training
        if offline:
            log.warning("W&B: cannot write offline (%s); the run's own files go on", error)
            return []
        log.warning("W&B: not reachable (%s); logging offline, upload later with `wandb sync`", _one_line(error))
    try:
        import wandb as client

        client.teardown()  # its service keeps the run's id reserved after a failed start
        return [_start(run, project, True, init_timeout_s)]
    except Exception as error:
        log.warning("W&B: cannot write offline (%s); the run's own files go on", _one_line(error))
        return []


def _start(run: RunInfo, project: str, offline: bool, init_timeout_s: float) -> WandbLogger:
    os.environ.setdefault("WANDB_SILENT", "true")  # Lightning passes a setting that the client warns about each time
    import wandb as client

    settings = client.Settings(
        init_timeout=init_timeout_s, finish_timeout=60.0, finish_timeout_raises=False, silent=True, console="off"
    )
    Path(run.folder).mkdir(parents=True, exist_ok=True)
    logger = WandbLogger(
        project=project,
        name=run.name,
        id=run.id,
        save_dir=run.folder,
        offline=offline,
        group=run.experiment,
        job_type=next((str(run.factors[k]) for k in ("encoder", "model", "landscape") if k in run.factors), "run"),
        tags=[f"{k}={v}"[:64] for k, v in run.factors.items()],
        config={**run.config, "factors": run.factors, "fingerprint": run.id},
        resume="allow",
        settings=settings,
        dir=str(run.folder),
    )
    mode = os.environ.get("WANDB_MODE")
    experiment = logger.experiment  # starts the client now, so that a failure shows before training
    # Lightning sets this for an offline run and leaves it: the next run of this process would be offline too.
    if mode is None:
        os.environ.pop("WANDB_MODE", None)
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("*", step_metric="trainer/global_step")
    for key, summary in BEST.items():
        experiment.define_metric(key, step_metric="trainer/global_step", summary=summary)
    return logger


def log_samples(loggers: list[Logger], rows: list[dict[str, Any]], n: int = 20) -> None:
    """A table of the first `n` test utterances with reference, hypothesis and errors (or text and -log p)."""
    if not rows:
        return
    known = ["id", "ref", "hyp", "sub", "del", "ins", "text", "nats", "labels", "words"]
    columns = [c for c in known if c in rows[0]]
    for logger in _wandb(loggers):
        try:
            logger.log_table("samples", columns=columns, data=[[row[c] for c in columns] for row in rows[:n]])
        except Exception as error:
            log.warning("W&B: the table of samples was not logged (%s)", _one_line(error))


def finish(loggers: list[Logger], summary: dict[str, Any], failed: bool) -> None:
    """Close W&B runs, so that the next run of this process starts its own."""
    for logger in _wandb(loggers):
        try:
            import wandb as client

            logger.experiment.summary.update(summary)
            logger.experiment.finish(exit_code=int(failed))
            client.teardown()  # or the next run of this process would keep this one's mode and address
        except Exception as error:
            log.warning("W&B: not closed properly (%s); `wandb sync` completes it", _one_line(error))


def _wandb(loggers: list[Logger]) -> list[WandbLogger]:
    return [logger for logger in loggers if isinstance(logger, WandbLogger)]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
