"""The local launcher: a pool of processes on this machine, one cell a process, each from its frozen configuration."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from asr_lab.errors import ConfigError, RunError
from asr_lab.run import Run
from asr_lab.sweep.cell import frozen
from asr_lab.sweep.children import Children
from asr_lab.sweep.gpus import Gpus, gpus_here
from asr_lab.sweep.pool import Pool


class LocalLauncher(Launcher):
    """Runs `n_jobs` cells at once (`auto`: one a core), the cores shared out among them.

    Each cell is a process of its own, started from what was frozen before. A cell that fails stops no other; one that
    is killed is started again, at most `max_deaths` times. Cells that another launch runs at the time are waited for,
    and taken over should it die. A cell on GPUs gets the least laden ones; `cells_per_gpu=auto` puts as many on one as
    fit its memory, once the first cell has shown what it needs.
    """

    def __init__(self, n_jobs: int | str, cells_per_gpu: int | str = 1, max_deaths: int = 3):
        _check("n_jobs", n_jobs)
        _check("cells_per_gpu", cells_per_gpu)
        if max_deaths < 0:
            raise ConfigError(f"hydra.launcher.max_deaths is a count, {max_deaths} came")
        self.n_jobs, self.cells_per_gpu, self.max_deaths = n_jobs, cells_per_gpu, max_deaths
        self.children = Children()

    def warm(self) -> None:
        """Begin with what takes long before there are cells; `close` undoes it."""
        self.children.warm()

    def close(self) -> None:
        """No more cells will come."""
        self.children.close()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """For Hydra's other sweepers; our own calls `launch_runs`."""
        setup_globals()
        loader = self.hydra_context.config_loader
        cfgs = [loader.load_sweep_config(self.config, list(o)) for o in job_overrides]
        runs = []
        for cfg in cfgs:
            folder = (Path(cfg.hydra.sweep.dir) / cfg.hydra.sweep.subdir).absolute()
            own = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"])
            runs.append(frozen(own, cfg.hydra, folder, n_threads=self.n_threads(len(cfgs))))
        try:
            self.launch_runs([r for r in runs if not r.is_done()], 0)
        finally:
            self.close()
        return [_returned(run, cfg) for run, cfg in zip(runs, cfgs, strict=True)]

    def n_threads(self, n_cells: int) -> int:
        """Of each cell, where it says `auto`"""
        return max(1, n_cores() // self._at_once(n_cells))

    def launch_runs(self, runs: list[Run], retry_failed: int) -> None:
        """Run frozen cells to their end, one that fails again up to `retry_failed` times.

        Raises:
            RunError: some did not finish.
        """
        if not runs:
            return
        self.pool(Pool, runs, retry_failed).run()
        failed = [run for run in runs if not run.is_done()]
        if failed:
            first = failed[0].result() or {}
            raise RunError(
                f"{len(failed)} of {len(runs)} cells did not finish, first {failed[0].folder}: "
                f"{first.get('status')}: {first.get('reason')}"
            )

    def pool(self, kind: Callable[..., Any], runs: list[Run], retry_failed: int = 0, **more: Any) -> Any:
        """A pool of cells with what this launcher was told; `more` for its kind, `like` a cell of those to come"""
        n = more.get("n") or len(runs)
        gpus = self._gpus(runs or [more.pop("like")])
        return kind(
            runs, self._at_once(n), self.n_threads(n), retry_failed, self.max_deaths, gpus, self.children, **more
        )

    def _at_once(self, n_cells: int) -> int:
        return max(1, min(n_cores() if self.n_jobs == "auto" else int(self.n_jobs), n_cells))

    def _gpus(self, runs: list[Run]) -> Gpus:
        on_cpu = all(run.config["trainer"].get("accelerator") == "cpu" for run in runs)
        return Gpus({} if on_cpu else gpus_here(), self.cells_per_gpu)


def n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(key: str, value: int | str) -> None:
    if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ConfigError(f"hydra.launcher.{key} is 'auto' or a positive count, {value!r} came")


def _returned(run: Run, cfg: DictConfig) -> JobReturn:
    result = run.result() or {}
    job = JobReturn(overrides=list(cfg.hydra.overrides.task), cfg=cfg, hydra_cfg=cfg, working_dir=str(run.folder))
    job.task_name = cfg.hydra.job.name
    job.status = JobStatus.COMPLETED
    job.return_value = result["metrics"].get(f"test/{run.score}")
    return job
