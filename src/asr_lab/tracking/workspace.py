"""A saved view of an experiment's runs at Weights & Biases, as code (package wandb-workspaces)."""

import os
from pathlib import Path
from typing import Any

from asr_lab.errors import ConfigError, RunError
from asr_lab.report.collect import collect
from asr_lab.report.summary import summarise
from asr_lab.tracking.state import one_line
from asr_lab.tracking.wandb_copy import AXIS


def save_workspace(folder: Path, project: str) -> str:
    """Of the experiment in `folder`. Returns the view's address.

    Raises:
        ConfigError: the extra is not installed.
        AsrLabError: no finished cell, or the service does not answer.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        import wandb
        from wandb_workspaces import workspaces  # noqa: F401
    except ImportError:
        raise ConfigError("asr-lab wandb workspace: not installed; pip install 'asr-lab[wandb-workspaces]'") from None
    summary = summarise(collect(folder))
    experiment = summary.experiment
    try:
        entity = os.environ.get("WANDB_ENTITY") or wandb.Api().default_entity
        saved = view(str(entity), project, experiment.name, experiment.score, list(summary.swept)).save()
    except Exception as error:  # the client raises many kinds
        raise RunError(f"W&B: the workspace was not saved ({one_line(error)})") from None
    return str(saved.url)


def view(entity: str, project: str, experiment: str, score: str, swept: list[str]) -> Any:
    """Sections: validation and training curves grouped by the swept factors, cost against score, clipping, tables."""
    from wandb_workspaces import workspaces as ws
    from wandb_workspaces.reports import v2 as panels
    from wandb_workspaces.reports.v2.interface import ParallelCoordinatesPlotColumn as Column

    def line(title: str, *keys: str, **more: Any) -> Any:
        return panels.LinePlot(title=title, x=AXIS, y=list(keys), **more)

    # A choice stands among the factors; a value such as clipping.threshold in its place of the configuration.
    keys = [axis if "." in axis else f"factors.{axis}" for axis in swept]
    factors: list[Any] = [ws.Config(key) for key in keys]
    test = panels.SummaryMetric(f"test/{score}")
    scores = [
        line(f"Validation {score}", f"val/{score}"),
        panels.BarPlot(title=f"Test {score}", metrics=[f"test/{score}"]),
        panels.ScatterPlot(title=f"Size and test {score}", x=panels.SummaryMetric("parameters"), y=test, log_x=True),
        panels.ScatterPlot(title=f"Time and test {score}", x=panels.SummaryMetric("seconds/train"), y=test),
        panels.ParallelCoordinatesPlot(
            title=f"Factors and test {score}",
            columns=[
                *(Column(panels.Config(key)) for key in keys),
                Column(test),
            ],
        ),
    ]
    training = [
        line("Loss", "train/loss", "val/loss"),
        line("Gradient norm", "train/grad_norm", "train/grad_norm_after", log_y=True),
        line("Share of clipped steps", "train/clipped"),
        line("Learning rate", "train/lr"),
    ]
    media = [panels.MediaBrowser(title="Test utterances", media_keys=["samples"]), panels.RunComparer()]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"asr_lab {experiment}",
        sections=[
            ws.Section(name="Scores", panels=scores, is_open=True),
            ws.Section(name="Training", panels=training, is_open=True),
            ws.Section(name="Utterances", panels=media),
        ],
        runset_settings=ws.RunsetSettings(filters=f'Metric("Group") == "{experiment}"', groupby=factors),
    )
