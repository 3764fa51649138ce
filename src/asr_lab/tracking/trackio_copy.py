"""A copy of a run in trackio's database on this machine, made from the run's files; `trackio show` is its page."""

import contextlib
import os
from typing import Any

import numpy as np

from asr_lab.run import Run
from asr_lab.tracking import End
from asr_lab.tracking.state import State
from asr_lab.tracking.wandb_copy import BINS, COLUMNS, summary_of


class TrackioCopy:
    """A run called <experiment>.<cell>, its group the experiment. Steps that are there already are not sent again.

    It stays on this machine, in the folder of TRACKIO_DIR or trackio's own, unless TRACKIO_SPACE_ID or
    TRACKIO_SERVER_URL says otherwise.
    """

    def __init__(self, run: Run, state: State, project: str):
        self.run, self.state, self.project = run, state, project
        self._client: Any = None
        self._step = 0  # of the last row

    def open(self) -> int:
        if not {"TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"} & os.environ.keys():
            os.environ["HF_HUB_OFFLINE"] = "1"  # or its hub would be asked who we are
        import trackio

        self._client = trackio.init(
            project=self.project,
            name=f"{self.run.config['experiment']}.{self.run.name}",
            group=self.run.config["experiment"],
            config={**self.run.config, "factors": self.run.factors, "fingerprint": self.run.fingerprint},
            resume="allow",
            embed=False,
            auto_log_cpu=False,  # it would be this process's
            auto_log_gpu=False,
        )
        from trackio.sqlite_storage import SQLiteStorage

        last = SQLiteStorage.get_last_step(self.project, self._client.name, self._client.id)
        self.state.write(id=self._client.id, project=self.project, name=self._client.name, complete=False)
        return 0 if last is None else last + 1

    def log(self, step: int, values: dict[str, float], gradients: dict[str, np.ndarray]) -> None:
        import trackio

        histograms = {
            f"gradient_log10/{layer}": trackio.Histogram(np_histogram=np.histogram(x, BINS))
            for layer, x in gradients.items()
        }
        trackio.log({**values, **histograms}, step=step)
        self._step = step

    def alert(self, title: str, text: str, is_error: bool) -> None:
        import trackio

        level = trackio.AlertLevel.ERROR if is_error else trackio.AlertLevel.WARN
        trackio.alert(title=title, text=text, level=level)

    def finish(self, end: End) -> str:
        import trackio

        if end.utterances:
            columns = [c for c in COLUMNS if c in end.utterances[0].row]
            rows = [[u.row.get(c) for c in columns] for u in end.utterances]
            last = {f"final/{k}": v for k, v in summary_of(end.result).items() if isinstance(v, int | float)}
            trackio.log({"samples": trackio.Table(columns=columns, data=rows), **last}, step=self._step)
        trackio.finish()
        return f"the run is {end.status}" if end.status in ("preempted", "running") else ""

    def abandon(self) -> None:
        import trackio

        with contextlib.suppress(Exception):
            trackio.finish()
