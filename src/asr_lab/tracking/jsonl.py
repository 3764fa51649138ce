"""metrics.jsonl: every logged value, one row a step, always written."""

import json
import time
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers.logger import Logger

from asr_lab.files import read_jsonl, write_jsonl


class JsonlLogger(Logger):
    """Appends `{"step", "epoch", "seconds", <metrics>}` rows; a resume first drops what came after the checkpoint."""

    def __init__(self, path: Path, resume_step: int):
        super().__init__()
        self.path = path
        # Steps count from 0: the checkpoint of step n was written after the row of step n - 1.
        kept = [row for row in read_jsonl(path) if row["step"] < resume_step] if path.exists() else []
        write_jsonl(path, kept)
        self._start = time.monotonic() - (kept[-1]["seconds"] if kept else 0.0)

    @property
    def name(self) -> str:
        return "jsonl"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = dict(metrics)
        row: dict[str, Any] = {"step": step or 0, "epoch": int(values.pop("epoch", 0))}
        row["seconds"] = round(time.monotonic() - self._start, 3)
        row |= {k: float(v) for k, v in values.items()}
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(row) + "\n")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration has a file of its own."""
