"""The choices logger=wandb and logger=wandb_offline."""

from pytorch_lightning.loggers import Logger

from asr_lab.tracking import RunInfo


def wandb(
    run: RunInfo,
    project: str,
    offline: bool,
    artifacts: bool,
    init_timeout_s: float,
    finish_timeout_s: float,
    wait_s: float,
    poll_s: float,
) -> list[Logger]:
    """A copy of the run at Weights & Biases (tracking/wandb_copy.py), made by another process."""
    from asr_lab.tracking.follower import Follower

    options = {"project": project, "offline": offline, "artifacts": artifacts, "poll_s": poll_s}
    limits = {"init_timeout_s": init_timeout_s, "finish_timeout_s": finish_timeout_s}
    return [Follower(run, "wandb", wait_s, **options, **limits)]
