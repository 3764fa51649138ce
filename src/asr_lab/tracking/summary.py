"""A run at Weights & Biases that sums an experiment up: its leaderboard with intervals, plots, and its report."""

import logging
import math
import os
from pathlib import Path
from typing import Any

from asr_lab.errors import RunError
from asr_lab.report.collect import collect
from asr_lab.report.render import render
from asr_lab.report.summary import Summary, summarise
from asr_lab.run import show_score
from asr_lab.tracking.state import one_line
from asr_lab.tracking.wandb_copy import artifact_name, close_client

log = logging.getLogger(__name__)


def send_summary(folder: Path, project: str, init_timeout_s: float, finish_timeout_s: float) -> str:
    """Writes the report and sends it with the leaderboard, as a run of the job type `summary` in the experiment's
    group; a second time goes on with the same run. Returns its address.

    Raises:
        AsrLabError: no finished cell, or the service does not answer.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    written, summary = render(folder), summarise(collect(folder))
    name = summary.experiment.name
    settings = wandb.Settings(init_timeout=init_timeout_s, finish_timeout=finish_timeout_s, silent=True, console="off",
                              finish_timeout_raises=True, x_disable_stats=True)  # fmt: skip
    try:
        client = wandb.init(
            project=project, name=f"summary of {name}", id=artifact_name(f"summary-{name}"), dir=str(folder),
            mode="online", group=name, job_type="summary", resume="allow", settings=settings,
            config={"experiment": name, "question": summary.experiment.question, "command": summary.experiment.command},
        )  # fmt: skip
        client.log(_panels(summary, written))
        client.summary.update(_facts(summary))
        report = wandb.Artifact(artifact_name(f"report-{name}"), type="report", metadata={"answer": summary.answer})
        for path in written.values():
            report.add_file(str(path))
        _use_models(client, summary)
        client.log_artifact(report)
        url = str(client.url)
        client.finish()
    except Exception as error:  # the client raises many kinds
        raise RunError(f"W&B: the summary was not sent ({one_line(error)}); run it again") from None
    finally:
        close_client()
    return url


def _use_models(client: Any, summary: Summary) -> None:
    """The models of the best configuration, where their runs have sent them"""
    for cell in summary.best.done if summary.best else []:
        try:
            client.use_artifact(f"{artifact_name(f'{summary.experiment.name}-{cell.fingerprint}')}:best")
        except Exception as error:
            log.info("%s: its model is not there (%s)", cell.name, one_line(error))


def leaderboard(summary: Summary) -> tuple[list[Any], list[Any]]:
    """(columns, a row for each configuration that has finished cells, the best first); rates in percent."""
    score = summary.score
    scale = 100.0 if score in ("wer", "cer") else 1.0
    columns = ["configuration", *summary.swept, f"test/{score}", "low", "high", "to best", "", "seeds", "parameters"]
    rows = []
    for row in (r for r in summary.configurations if r.done):
        if scale == 1.0:
            found = [c.metrics.get(f"test/{score}", math.nan) for c in row.done]
            rate, low, high, delta = sum(found) / len(found), math.nan, math.nan, math.nan
        else:
            rate, low, high, delta = row.rate.value, row.rate.low, row.rate.high, row.delta.value
        numbers = [_number(scale * x) for x in (rate, low, high, delta)]
        mark = "best" if row.best else "tied with the best" if row.tied else ""
        sizes = {c.numbers.get("parameters") for c in row.done}
        size = sizes.pop() if len(sizes) == 1 else None
        label = ", ".join(row.factors.values()) or "all"
        factors = [row.factors.get(k) for k in summary.swept]
        rows.append([label, *factors, *numbers, mark, f"{len(row.done)}/{len(row.cells)}", size])
    return columns, rows


def _panels(summary: Summary, written: dict[str, Path]) -> dict[str, Any]:
    import wandb

    columns, rows = leaderboard(summary)
    key = f"test/{summary.score}"
    table = wandb.Table(columns=[c or "mark" for c in columns], data=rows)
    panels: dict[str, Any] = {"leaderboard": table}
    panels["plots/score"] = wandb.plot.bar(table, "configuration", key, title=f"{key} of {summary.experiment.name}")
    sized = [row for row in rows if row[-1] is not None]
    if len({row[-1] for row in sized}) > 1:
        sizes = wandb.Table(columns=[c or "mark" for c in columns], data=sized)
        panels["plots/cost"] = wandb.plot.scatter(sizes, "parameters", key, title=f"{key} against size")
    if "html" in written:
        panels["report"] = wandb.Html(written["html"].read_text(encoding="utf-8"), inject=False)
    return panels


def _facts(summary: Summary) -> dict[str, Any]:
    cells = summary.experiment.cells
    done = [c for c in cells if c.done]
    facts: dict[str, Any] = {"answer": summary.answer, "cells": len(cells), "cells/done": len(done)}
    facts["cells/not_done"] = {c.name: f"{c.status}: {c.reason}" for c in cells if not c.done}
    if summary.best:
        facts |= {"best": summary.best.factors, "best/score": show_score(summary.score, summary.best.rate.value)}
    return facts


def _number(x: float) -> float | None:
    return None if math.isnan(x) else round(x, 6)
