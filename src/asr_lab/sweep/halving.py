"""Successive halving over a grid: all cells train a little, the better part of them goes on, and so forth.

After Jamieson & Talwalkar 2016, with the rungs of Li et al. 2018 (Hyperband): rung k lasts `first` * eta^k epochs, and
1/eta of its cells go on to the next. A cell goes on from its checkpoint, in the schedule of its whole training, so that
one that comes to the end is what it would have been in a plain sweep. The others stay in the report as cancelled.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

from asr_lab.errors import ConfigError
from asr_lab.files import read_jsonl
from asr_lab.ledger import of_run
from asr_lab.process import PAUSE
from asr_lab.run import Run
from asr_lab.sweep.grid import GridSweeper
from asr_lab.sweep.plan import Plan, Planned


def rungs(epochs: int, first: int, eta: int) -> list[int]:
    """Epochs after which cells are compared; the last is the end of training."""
    found = []
    while first < epochs:
        found.append(first)
        first *= eta
    return [*found, epochs]


def best(scores: dict[str, float], eta: int) -> list[str]:
    """The 1/eta with the least scores, at least one; cells without one (nan) come last."""
    order = sorted(scores, key=lambda name: (math.isnan(scores[name]), scores[name], name))
    return order[: max(1, len(order) // eta)]


class HalvingSweeper(GridSweeper):
    """Args: `first`: epochs of the first rung; `eta`: one of so many goes on; the others as `GridSweeper`."""

    def __init__(self, first: int, eta: int, retry_failed: int, allow_drift: bool):
        super().__init__(retry_failed, allow_drift)
        if first < 1 or eta < 2:
            raise ConfigError(f"hydra.sweeper: first is at least 1 and eta at least 2, {first} and {eta} came")
        self.first, self.eta = first, eta

    def launch(self, plan: Plan, todo: list[Planned]) -> Any:
        if not hasattr(self.launcher, "pool"):
            raise ConfigError("hydra/sweeper=halving works with hydra/launcher=local")
        from asr_lab.sweep.pool import Pool

        runs = self.frozen(plan, plan.cells)  # those that are done take part in the comparison
        epochs = {run.config["trainer"]["max_epochs"] for run in runs}
        if len(epochs) > 1 or min(epochs) < 1:
            raise ConfigError(
                f"hydra/sweeper=halving: all cells have the same trainer.max_epochs, {sorted(epochs)} came"
            )

        def train(cells: list[Run], env: dict[str, str]) -> None:
            if cells:
                self.launcher.pool(Pool, cells, env=env).run()

        halve(runs, epochs.pop(), self.first, self.eta, train)


def halve(
    runs: list[Run], epochs: int, first: int, eta: int, train: Callable[[list[Run], dict[str, str]], Any]
) -> None:
    """`train(runs, environment)` trains cells as far as the environment says."""
    left = runs
    for rung in rungs(epochs, first, eta):
        train(
            [run for run in left if not run.is_done() and n_epochs(run) < rung],
            {PAUSE: str(rung)} if rung < epochs else {},
        )
        if rung == epochs:
            break
        scores = {run.name: score_within(run, rung) for run in left}
        going_on = set(best(scores, eta))
        print(f"epoch {rung}: {len(going_on)} of {len(left)} cells go on", file=sys.stderr, flush=True)
        for run in left:
            if run.name not in going_on and not run.is_done():
                reason = f"halved at epoch {rung}: val/{run.score} {scores[run.name]:.4g} is not among the best"
                run.write_result(status="cancelled", reason=reason)
                of_run(run.folder)("cancelled", reason, score=scores[run.name], metric=run.score)
        left = [run for run in left if run.name in going_on]


def n_epochs(run: Run) -> int:
    """That it has trained and validated"""
    return len(points(run))


def score_within(run: Run, epochs: int) -> float:
    """The best validation score of the first so many epochs, nan without one."""
    return min((score for epoch, score in points(run) if epoch < epochs and math.isfinite(score)), default=math.nan)


def points(run: Run) -> list[tuple[int, float]]:
    """(epoch, validation score) of a run so far"""
    if not run.metrics_file.exists():
        return []
    key = f"val/{run.score}"
    found = {row["epoch"]: row[key] for row in read_jsonl(run.metrics_file) if key in row}
    return sorted(found.items())
