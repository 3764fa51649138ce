"""The choices of conf/logger: each is called with the run's RunInfo and gives Lightning loggers."""

import importlib.util

from pytorch_lightning.loggers import CSVLogger, Logger

from asr_lab.errors import ConfigError
from asr_lab.tracking import RunInfo


def none(run: RunInfo) -> list[Logger]:
    """The run's own files only."""
    return []


def csv(run: RunInfo) -> list[Logger]:
    """`csv/metrics.csv` in the run's folder."""
    return [CSVLogger(save_dir=run.folder, name="csv", version="")]


def tensorboard(run: RunInfo) -> list[Logger]:
    """Event files in `tensorboard/` of the run's folder; needs the extra `tensorboard`."""
    _need("tensorboard")
    from asr_lab.tracking.tensorboard import TensorBoard

    return [TensorBoard(run)]


def trackio(run: RunInfo, project: str, finish_timeout_s: float, wait_s: float, poll_s: float) -> list[Logger]:
    """A copy of the run in trackio's local database (tracking/trackio_copy.py), made by another process; needs the
    extra `trackio`."""
    _need("trackio")
    from asr_lab.tracking.follower import Follower

    options = {"project": project, "finish_timeout_s": finish_timeout_s, "poll_s": poll_s}
    return [Follower(run, "trackio", wait_s, **options)]


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"logger={package}: not installed; pip install 'asr-lab[{package}]'")
