"""The choices of conf/logger: each is called with the run's RunInfo and gives Lightning loggers."""

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

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
    try:
        import tensorboard  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError("logger=tensorboard: not installed; pip install 'asr-lab[tensorboard]'") from None
    return [TensorBoardLogger(save_dir=run.folder, name="tensorboard", version="")]
