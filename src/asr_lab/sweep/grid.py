"""The sweeper: an experiment's `grid` becomes a plan, written before anything starts, and a launcher runs it."""

import sys
from typing import Any

import yaml
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from asr_lab.environment import code_digest
from asr_lab.errors import RunError
from asr_lab.files import write_text
from asr_lab.ledger import Ledger, mend
from asr_lab.run import Run
from asr_lab.sweep.plan import Plan, Planned, make_plan
from asr_lab.sweep.values import write


class GridSweeper(Sweeper):
    """Runs the cells of a grid that are missing.

    `retry_failed`: cells that failed are run again, each up to so many times; with 0 they are left as they are.
    `allow_drift`: goes on although the code has changed since other cells of the experiment were done.
    """

    def __init__(self, retry_failed: int, allow_drift: bool):
        if retry_failed < 0:
            raise RunError(f"hydra.sweeper.retry_failed is a count, {retry_failed} came")
        self.retry_failed, self.allow_drift = retry_failed, allow_drift

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        if not hasattr(self.launcher, "warm"):
            return self._sweep(arguments)
        self.launcher.warm()
        try:
            return self._sweep(arguments)
        finally:
            self.launcher.close()

    def _sweep(self, arguments: list[str]) -> Any:
        assert self.hydra_context is not None and self.config is not None
        plan = make_plan(self.hydra_context.config_loader, self.config, arguments)
        if hasattr(self.launcher, "check"):
            self.launcher.check()
        for line in mend(plan.folder):
            print(f"asr-lab: {line}", file=sys.stderr, flush=True)
        rerun = bool(plan.look("runtime.rerun"))
        results = {cell.name: Run.result_in(plan.folder / cell.name) for cell in plan.cells}
        if not self.allow_drift and not rerun:
            _same_code(plan, results)
        plan.save()
        todo = [cell for cell in plan.cells if rerun or self._is_missing(cell, results[cell.name])]
        print(_summary(plan, results, len(todo)), file=sys.stderr, flush=True)
        if not hasattr(self.launcher, "launch_runs"):  # Hydra's own
            jobs = [[*cell.overrides, f"hydra.sweep.subdir={write(cell.name)}"] for cell in todo]
            return self.launcher.launch(jobs, initial_job_idx=0) if jobs else []
        return self.launch(plan, todo)

    def launch(self, plan: Plan, todo: list[Planned]) -> Any:
        return self.launcher.launch_runs(self.frozen(plan, todo), self.retry_failed)

    def frozen(self, plan: Plan, cells: list[Planned]) -> list[Run]:
        """The cells' runs, written before the first one starts, so that a YAML edited meanwhile changes nothing"""
        n_threads = self.launcher.n_threads(len(cells))
        new = {cell.name for cell in cells if not (plan.folder / cell.name).exists()}
        runs = [freeze(plan, cell, n_threads) for cell in cells]
        ledger = Ledger(plan.folder)
        ledger.extend((r.name, "planned", "", {"fingerprint": r.fingerprint}) for r in runs if r.name in new)
        ledger.close()
        return runs

    def _is_missing(self, cell: Planned, result: dict[str, Any] | None) -> bool:
        if result is None or result["fingerprint"] != cell.fingerprint:
            return True
        return result["status"] not in ("done", "exploded", *([] if self.retry_failed else ["failed"]))


def freeze(plan: Plan, cell: Planned, n_threads: int) -> Run:
    """A cell's run, written to its folder unless it is there already"""
    run = plan.run(cell)
    runtime = run.config["runtime"]
    runtime["quiet"] = True
    if runtime["n_threads"] == "auto":
        runtime["n_threads"] = n_threads
    run.freeze(rerun=runtime["rerun"])
    # Where Hydra's users look for it.
    write_text(run.folder / ".hydra" / "overrides.yaml", yaml.safe_dump(cell.overrides, allow_unicode=True))
    return run


def _same_code(plan: Plan, results: dict[str, dict[str, Any] | None]) -> None:
    """Raises RunError where cells that are done came of other code than this."""
    done = [r for r in results.values() if r and r["status"] == "done" and r.get("code")]
    other = [r for r in done if r["code"] != code_digest()]
    if other:
        raise RunError(
            f"{plan.folder}: {len(other)} of {len(done)} finished cells came of other code ({other[0]['code']}, now "
            f"{code_digest()}); --allow-drift mixes them, --rerun runs all again"
        )


def _summary(plan: Plan, results: dict[str, dict[str, Any] | None], n_todo: int) -> str:
    said = [f"{len(plan.cells)} cells"]
    if plan.merged:
        said.append(f"{plan.merged} the same as another")
    if plan.excluded:
        said.append(f"{len(plan.excluded)} excluded")
    statuses = [r["status"] for r in results.values() if r]
    said += [f"{statuses.count('done')} done already"]
    said += [f"{statuses.count(s)} {s} before" for s in ("failed", "exploded") if s in statuses]
    said.append(f"{n_todo} to run")
    return ", ".join(said)
