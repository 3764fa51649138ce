"""Histograms of gradients, sent to the places that can show them."""

import logging
from collections.abc import Mapping

import numpy as np
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

log = logging.getLogger(__name__)

BINS = 48


def log_histograms(loggers: list[Logger], of_layer: Mapping[str, np.ndarray], step: int) -> bool:
    """A histogram of log10 |g| a layer, `gradient_log10/<layer>`, over the elements that are not 0.

    In powers of ten, because gradients of layers lie orders of magnitude apart. Returns whether it went well: who
    watches must never end a training, so a failure is said once and the caller stops sending.
    """
    wanted = [logger for logger in loggers if isinstance(logger, WandbLogger | TensorBoardLogger)]
    sizes = {layer: np.abs(g[np.isfinite(g) & (g != 0)]) for layer, g in of_layer.items()} if wanted else {}
    logs = {f"gradient_log10/{layer}": np.log10(size) for layer, size in sizes.items() if len(size)}
    for logger in wanted:
        try:
            _send(logger, logs, step)
        except Exception as error:  # the clients raise many kinds
            log.warning("histograms of gradients are no longer logged (%s)", " ".join(str(error).split())[:200])
            return False
    return True


def _send(logger: WandbLogger | TensorBoardLogger, logs: dict[str, np.ndarray], step: int) -> None:
    if isinstance(logger, TensorBoardLogger):
        for key, values in logs.items():
            logger.experiment.add_histogram(key, values, step, bins=BINS)  # pyright: ignore[reportAttributeAccessIssue]
    elif logs:
        import wandb

        histograms = {k: wandb.Histogram(np_histogram=np.histogram(values, BINS)) for k, values in logs.items()}
        logger.log_metrics(histograms, step)  # pyright: ignore[reportArgumentType]
