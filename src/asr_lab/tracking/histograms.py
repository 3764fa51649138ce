"""Histograms of gradients for TensorBoard; a copy made from the run's files takes them from gradients.npz."""

import logging
from collections.abc import Mapping

import numpy as np
from pytorch_lightning.loggers import Logger, TensorBoardLogger

log = logging.getLogger(__name__)

BINS = 48


def log_histograms(loggers: list[Logger], of_layer: Mapping[str, np.ndarray], step: int) -> bool:
    """A histogram of log10 |g| a layer, `gradient_log10/<layer>`, over the elements that are not 0.

    In powers of ten, because gradients of layers lie orders of magnitude apart. Returns whether it went well: who
    watches must never end a training, so a failure is said once and the caller stops sending.
    """
    wanted = [logger for logger in loggers if isinstance(logger, TensorBoardLogger)]
    sizes = {layer: np.abs(g[np.isfinite(g) & (g != 0)]) for layer, g in of_layer.items()} if wanted else {}
    for logger in wanted:
        try:
            for layer, size in sizes.items():
                if len(size):
                    writer = logger.experiment
                    writer.add_histogram(f"gradient_log10/{layer}", np.log10(size), step, bins=BINS)  # pyright: ignore
        except Exception as error:
            log.warning("histograms of gradients are no longer logged (%s)", " ".join(str(error).split())[:200])
            return False
    return True
