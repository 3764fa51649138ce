"""Search beyond a grid: Optuna proposes cells (ask), which run as any other, and is told their validation scores.

The space is the experiment's `grid`: each axis is a choice, `sample.axes` are ranges. Trials are kept in
`optuna.db` (SQLite) of the experiment's folder, so that a search that died goes on with what it knew. Epoch by epoch a
trial's score is reported; one that the pruner gives up saves, ends, and stays in the report as cancelled.
"""

import logging
import math
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from asr_lab.errors import ConfigError, RunError
from asr_lab.files import write_text
from asr_lab.hold import holder
from asr_lab.run import Run
from asr_lab.sweep import algebra
from asr_lab.sweep.algebra import Cell, axis
from asr_lab.sweep.conditions import holds
from asr_lab.sweep.grid import GridSweeper, freeze
from asr_lab.sweep.halving import points
from asr_lab.sweep.plan import Plan, make_plan, read_arguments
from asr_lab.sweep.pool import Pool

FILE = "optuna.db"
SAMPLERS = ("tpe", "random")
PRUNERS = ("median", "halving", "none")


class OptunaSweeper(GridSweeper):
    """Args: `n_trials` in all, over all launches; `sampler` and its `seed`; `pruner`, which leaves a trial in peace for
    `warmup_epochs`; `allow_drift` as `GridSweeper`."""

    def __init__(self, n_trials: int, sampler: str, seed: int, pruner: str, warmup_epochs: int, allow_drift: bool):
        super().__init__(0, allow_drift)
        if n_trials < 1:
            raise ConfigError(f"hydra.sweeper.n_trials must be positive, {n_trials} came")
        for key, value, known in (("sampler", sampler, SAMPLERS), ("pruner", pruner, PRUNERS)):
            if value not in known:
                raise ConfigError(f"hydra.sweeper.{key}={value}; choose from: {', '.join(known)}")
        self.n_trials, self.sampler, self.seed = n_trials, sampler, seed
        self.pruner, self.warmup_epochs = pruner, warmup_epochs

    def _sweep(self, arguments: list[str]) -> Any:
        assert self.hydra_context is not None and self.config is not None
        if not hasattr(self.launcher, "pool"):
            raise ConfigError("hydra/sweeper=optuna works with hydra/launcher=local")
        loader, config = self.hydra_context.config_loader, self.config
        grid, fixed = read_arguments(loader, config, arguments)
        space = Space(grid)

        def plan_of(cells: list[Cell]) -> Plan:
            return make_plan(loader, config, fixed, cells)

        first = plan_of([space.cell(First())])  # whatever is wrong with a key is said before a study is made
        study = self._study(first)
        revive(study, first.folder)
        search = self.launcher.pool(
            Search, [], like=first.run(first.cells[0]), n=self.n_trials, study=study, space=space, plan_of=plan_of
        )
        if search.n_left:
            search.run()
        print(summary(study), file=sys.stderr, flush=True)

    def _study(self, plan: Plan) -> Any:
        try:
            import optuna
        except ImportError:
            raise RunError("hydra/sweeper=optuna needs Optuna: pip install 'asr-lab[hpo]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        plan.folder.mkdir(parents=True, exist_ok=True)
        samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
        pruners = {
            "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=self.warmup_epochs),
            "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, self.warmup_epochs)),
            "none": optuna.pruners.NopPruner,
        }
        return optuna.create_study(
            study_name=plan.experiment,
            storage=f"sqlite:///{plan.folder / FILE}",
            sampler=samplers[self.sampler](seed=self.seed + _n_trials(plan.folder / FILE)),
            pruner=pruners[self.pruner](),
            direction="minimize",
            load_if_exists=True,
        )


class First:
    """Stands for a trial: the first of everything."""

    def choose(self, name: str, values: list[Any]) -> Any:
        return values[0]

    def number(self, name: str, kind: str, low: float, high: float) -> float:
        return int(low) if kind == "int" else low


class Suggested:
    """An Optuna trial."""

    def __init__(self, trial: Any):
        self.trial = trial

    def choose(self, name: str, values: list[Any]) -> Any:
        # By place: Optuna knows no lists, and a number is to stay what it was written as.
        return values[self.trial.suggest_categorical(name, list(range(len(values))))]

    def number(self, name: str, kind: str, low: float, high: float) -> float:
        if kind == "int":
            return self.trial.suggest_int(name, int(low), int(high))
        return float(f"{self.trial.suggest_float(name, low, high, log=kind == 'log'):.6g}")


class Space:
    """An experiment's grid as a space; axes inside `when` exist where its condition holds."""

    def __init__(self, grid: Mapping[str, Any]):
        self.grid = {name: value for name, value in grid.items() if name != "repeat"}
        if "repeat" in grid:
            print(
                "asr-lab: grid.repeat is left out, a search runs each cell with one seed", file=sys.stderr, flush=True
            )
        if not self.grid:
            raise ConfigError("hydra/sweeper=optuna searches the experiment's grid, which is empty")
        _check(self.grid, "grid")

    def cell(self, source: First | Suggested) -> Cell:
        """A point; `source` chooses on each axis."""
        found: Cell = {}
        self._add(found, self.grid, source, "")
        return found

    def _add(self, cell: Cell, grid: Mapping[str, Any], source: First | Suggested, prefix: str) -> None:
        for name, values in grid.items():
            if name == "sample":
                for key, ends in values["axes"].items():
                    [(kind, given)] = ends.items()
                    if kind == "choice":
                        cell[key] = source.choose(prefix + key, list(given))
                    else:
                        cell[key] = source.number(prefix + key, kind, *map(float, given))
            elif name != "when":
                found = axis(values, f"grid.{name}")
                cell[name] = found[0] if len(found) == 1 else source.choose(prefix + name, found)
        for i, branch in enumerate(grid.get("when", ())):
            if holds(branch["if"], cell, f"grid.when[{i}].if"):
                self._add(cell, branch["grid"], source, f"{prefix}when[{i}].")


def _check(grid: Mapping[str, Any], where: str) -> None:
    for name in grid:
        if name in ("any", "exclude", "include", "list", "zip", "repeat"):
            raise ConfigError(f"{where}.{name}: is nothing to search; axes, sample.axes and when are")
    algebra.cells({**grid, **({"sample": {"n": 1, **grid["sample"]}} if "sample" in grid else {})})  # its mistakes
    for i, branch in enumerate(grid.get("when", ())):
        _check(branch["grid"], f"{where}.when[{i}].grid")


class Search(Pool):
    """A pool that asks for its cells, and gives up those that the pruner does not want."""

    def __init__(self, *args: Any, study: Any, space: Space, plan_of: Callable[[list[Cell]], Plan], **more: Any):
        super().__init__(*args, **more)
        self.study, self.space, self.plan_of = study, space, plan_of
        self.trials: dict[str, Any] = {}  # by name of their cells
        self.told: dict[str, int] = {}  # epochs that the study knows of
        # Those that `revive` has put into the queue are still to be asked for.
        counted = (t for t in study.trials if "died" not in t.user_attrs and t.state.name != "WAITING")
        self.n_left = max(0, self.n - sum(1 for _ in counted))

    def has_more(self) -> bool:
        return bool(self.todo) or self.n_left > 0

    def fill(self) -> bool:
        while not self.todo and self.n_left > 0:
            self.n_left -= 1
            self._ask()
        return bool(self.todo)

    def _ask(self) -> None:
        trial = self.study.ask()
        plan = self.plan_of([self.space.cell(Suggested(trial))])
        plan.save()
        run = freeze(plan, plan.cells[0], self.n_threads)
        trial.set_user_attr("cell", run.name)
        if run.name in self.trials:  # the same point again, while it runs
            self._tell(trial, None)
            return
        self.trials[run.name] = trial
        if run.is_done():
            self._over(run)
        else:
            self.todo.append(run)

    def watch(self) -> None:
        for run, _ in self.running.values():
            trial = self.trials[run.name]
            new = points(run)[self.told.get(run.name, 0) :]
            for epoch, score in new:
                trial.report(score, epoch)
            self.told[run.name] = self.told.get(run.name, 0) + len(new)
            if new and not run.cancelled_file.exists() and trial.should_prune():
                write_text(run.cancelled_file, f"pruned after epoch {new[-1][0] + 1}: val/{run.score} {new[-1][1]:.4g}")
                if (who := holder(run.folder)) and who.is_alive:
                    os.kill(who.pid, signal.SIGTERM)

    def over(self, run: Run) -> None:
        result = run.result() or {}
        score = result["metrics"].get(f"val/{run.score}") if result.get("status") == "done" else None
        self._tell(self.trials[run.name], score, pruned=result.get("status") == "cancelled")

    def _tell(self, trial: Any, score: float | None, pruned: bool = False) -> None:
        import optuna

        if score is not None and math.isfinite(score):
            self.study.tell(trial, score)
        else:
            state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.FAIL
            self.study.tell(trial, state=state)


def revive(study: Any, folder: Path) -> None:
    """Trials whose launch has died are asked for again, as the same points: their cells go on from a checkpoint."""
    import optuna

    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING], deepcopy=False):
        who = holder(folder / trial.user_attrs["cell"]) if "cell" in trial.user_attrs else None
        if who and who.is_alive:
            continue
        study._storage.set_trial_user_attr(trial._trial_id, "died", True)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)


def summary(study: Any) -> str:
    """The best trial and how many there were, in a line"""
    import optuna

    counts = Counter(t.state.name.lower() for t in study.trials if "died" not in t.user_attrs)
    said = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    try:
        best = study.best_trial
    except ValueError:
        return f"{said}; no trial has finished"
    assert isinstance(best, optuna.trial.FrozenTrial)
    return f"{said}; best {best.user_attrs['cell']}  val {best.value:.4g}"


def _n_trials(path: Path) -> int:
    """Trials there were: with the same seed a sampler would begin with the same points again"""
    import sqlite3

    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as db:
        try:
            return db.execute("select count(*) from trials").fetchone()[0]
        except sqlite3.Error:
            return 0
