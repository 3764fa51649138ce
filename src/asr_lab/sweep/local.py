"""The local launcher: a pool of processes on this machine, one cell a process, each from its frozen configuration."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, _save_config, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from asr_lab.errors import AsrLabError, ConfigError, RunError
from asr_lab.run import Run, show_score
from asr_lab.sweep.cell import frozen

log = logging.getLogger(__name__)


class LocalLauncher(Launcher):
    """Runs `n_jobs` cells at once (`auto`: one a core), the cores shared out among them.

    All cells are composed and frozen before the first one starts, so that a YAML edited meanwhile changes nothing. A
    cell that is done already is not run again. A cell that fails stops no other; the sweep then ends with an error that
    counts them. Each cell's output is in `train.log` of its folder.
    """

    def __init__(self, n_jobs: int | str):
        if n_jobs != "auto" and (not isinstance(n_jobs, int) or n_jobs < 1):
            raise ConfigError(f"hydra.launcher.n_jobs is 'auto' or a positive count, {n_jobs!r} came")
        self.n_jobs = n_jobs
        self.children: set[subprocess.Popen] = set()
        self.lock = threading.Lock()
        self.stopping = False

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        n_jobs = min(cores if self.n_jobs == "auto" else int(self.n_jobs), len(job_overrides))
        n_threads = max(1, cores // n_jobs)
        jobs = [self._freeze(list(o), initial_job_idx + i, n_threads) for i, o in enumerate(job_overrides)]
        todo = [run for run, _ in jobs if not run.is_done()]
        print(
            f"{len(jobs)} cells, {len(jobs) - len(todo)} done already, {n_jobs} at a time", file=sys.stderr, flush=True
        )
        self._run_all(todo, n_jobs)
        failed = [run for run, _ in jobs if not run.is_done()]
        if failed:
            first = failed[0].result() or {}
            raise RunError(
                f"{len(failed)} of {len(jobs)} cells did not finish, first {failed[0].folder}: "
                f"{first.get('status')}: {first.get('reason')}; the same command runs only what is missing"
            )
        return [_returned(run, cfg) for run, cfg in jobs]

    def _freeze(self, overrides: list[str], number: int, n_threads: int) -> tuple[Run, DictConfig]:
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(cfg):
            cfg.hydra.job.id, cfg.hydra.job.num = str(number), number
            if cfg.runtime.n_threads == "auto":
                cfg.runtime.n_threads = n_threads
            cfg.runtime.quiet = True
        folder = (Path(cfg.hydra.sweep.dir) / cfg.hydra.sweep.subdir).absolute()
        task_cfg = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"])
        run = frozen(task_cfg, cfg.hydra, folder)
        if not run.is_done():
            hydra_folder = folder / str(cfg.hydra.output_subdir)
            _save_config(task_cfg, "config.yaml", hydra_folder)
            _save_config(OmegaConf.masked_copy(cfg, "hydra"), "hydra.yaml", hydra_folder)
            _save_config(cfg.hydra.overrides.task, "overrides.yaml", hydra_folder)
        return run, cfg

    def _run_all(self, runs: list[Run], n_jobs: int) -> None:
        done = 0
        with ThreadPoolExecutor(max_workers=n_jobs) as pool:
            try:
                for run in pool.map(self._run, runs):
                    done += 1
                    print(f"[{done}/{len(runs)}] {line(run)}", file=sys.stderr, flush=True)
            except BaseException:
                self._stop()
                raise

    def _run(self, run: Run) -> Run:
        if self.stopping:
            return run
        with open(run.folder / "train.log", "ab") as out:
            child = subprocess.Popen(
                [sys.executable, "-m", "asr_lab.train", str(run.folder)],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
            with self.lock:
                self.children.add(child)
            code = child.wait()
            with self.lock:
                self.children.discard(child)
        result = run.result() or {}
        if code and result.get("status") in ("planned", "running"):
            # The process died without a word (killed, out of memory, an error while importing): say so for it.
            what = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
            _note(run, status="interrupted" if code < 0 else "failed", reason=f"{what}; see {run.folder}/train.log")
        return run

    def _stop(self) -> None:
        self.stopping = True
        with self.lock:
            for child in self.children:
                child.terminate()


def line(run: Run) -> str:
    """One cell's outcome in a line."""
    result = run.result() or {}
    if result.get("status") != "done":
        return f"{result.get('status')}  {run.name}  {result.get('reason')}"
    rate = show_score(run.score, result["metrics"].get(f"test/{run.score}", float("nan")))
    return f"done  {run.name}  test/{run.score} {rate}  {result['seconds']['total']:.0f} s"


def _note(run: Run, **changes: Any) -> None:
    try:
        run.write_result(**changes)
    except (AsrLabError, OSError) as error:
        log.warning("%s", error)


def _returned(run: Run, cfg: DictConfig) -> JobReturn:
    result = run.result() or {}
    job = JobReturn(overrides=list(cfg.hydra.overrides.task), cfg=cfg, hydra_cfg=cfg, working_dir=str(run.folder))
    job.task_name = cfg.hydra.job.name
    job.status = JobStatus.COMPLETED
    job.return_value = result["metrics"].get(f"test/{run.score}")
    return job
