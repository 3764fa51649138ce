"""The Slurm launcher: cells become tasks of job arrays; the launch comes back once they are queued."""

import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from asr_lab.errors import ConfigError, RunError
from asr_lab.hold import GONE_S
from asr_lab.ledger import Ledger
from asr_lab.run import Run
from asr_lab.sweep.pool import n_devices, n_nodes
from asr_lab.sweep.slurm_queue import ask, in_queue, max_array_size

FOLDER = ".slurm"  # of the scripts and logs of jobs, in the experiment's folder
LOOK_S = 5.0
WAITING = ("planned", "queued", "preempted")


class SlurmLauncher(Launcher):
    """Queues missing cells as job arrays and ends; `asr-lab status` follows them from files.

    Args:
        partition, account, qos: of sbatch; null leaves it to the site.
        minutes: time limit of a job. One that reaches it saves `signal_s` seconds before and is queued again.
        cpus_per_task, mem_gb: of each of a cell's processes, and of a node; null leaves the memory to the site.
        gpus: of each of a cell's processes; "auto": one for every device where the trainer's accelerator is no CPU.
        at_once: tasks of an array that run at the same time.
        max_requeues: how often a cell may be preempted.
        wait: stay until all cells are over.
        setup: lines of shell before the job's command, such as `module load`.
        sbatch: any further option of sbatch, such as {constraint: a100, mail_type: END}.
    """

    def __init__(
        self,
        partition: str | None,
        account: str | None,
        qos: str | None,
        minutes: int,
        cpus_per_task: int,
        mem_gb: float | None,
        gpus: int | str,
        at_once: int,
        signal_s: int,
        max_requeues: int,
        wait: bool,
        setup_lines: Sequence[str],
        sbatch: dict[str, Any],
    ):
        for key, value in (("minutes", minutes), ("cpus_per_task", cpus_per_task), ("at_once", at_once)):
            if value < 1:
                raise ConfigError(f"hydra.launcher.{key} must be positive, {value} came")
        if 60 * minutes <= signal_s:
            raise ConfigError(f"hydra.launcher.signal_s={signal_s} leaves nothing of minutes={minutes}")
        self.minutes, self.cpus_per_task, self.mem_gb, self.gpus = minutes, cpus_per_task, mem_gb, gpus
        self.partition, self.account, self.qos = partition, account, qos
        self.at_once, self.signal_s, self.max_requeues, self.wait = at_once, signal_s, max_requeues, wait
        self.setup_lines, self.sbatch = list(setup_lines), dict(sbatch)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        pass

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        raise ConfigError("hydra/launcher=slurm works with hydra/sweeper=grid or optuna")

    def n_threads(self, n_cells: int) -> int:
        """Of each cell, where it says `auto`"""
        return self.cpus_per_task

    def check(self) -> None:
        """Is a scheduler there, and does it know the partition?

        Raises:
            RunError: its own message.
        """
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise RunError("hydra/launcher=slurm needs submitit: pip install 'asr-lab[slurm]'") from None
        if not shutil.which("sbatch"):
            raise RunError("hydra/launcher=slurm: there is no sbatch here; launch from a login node of the cluster")
        known = sorted(set(ask("sinfo", "-h", "-o", "%R").split()))
        for name in (self.partition or "").split(","):
            if name and name not in known:
                raise RunError(f"hydra.launcher.partition={name}: no such partition; choose from: {', '.join(known)}")

    def launch_runs(self, runs: list[Run], retry_failed: int) -> None:
        """Queue frozen cells; those that wait in the queue already stay there.

        Raises:
            RunError: Slurm is not to be reached or refuses; nothing is queued then.
        """
        self.check()
        if not runs:
            return
        self._queue(runs)
        if self.wait:
            self._wait(runs)

    def _queue(self, runs: list[Run]) -> None:
        folder = runs[0].folder.parent
        queued, lost = in_queue(folder)
        if lost:
            print(f"cancelling jobs whose processes are gone: {', '.join(lost)}", file=sys.stderr, flush=True)
            subprocess.run(["scancel", *lost], check=False, capture_output=True)
        new = [run for run in runs if run.name not in queued]
        jobs = self._submit(folder, new)
        ledger = Ledger(folder)
        ledger.extend((run.name, "queued", "", {"job": job}) for run, job in jobs)
        ledger.close()
        arrays = sorted({job.partition("_")[0] for _, job in jobs})
        said = f", {len(queued & {r.name for r in runs})} wait in the queue already" if len(new) < len(runs) else ""
        print(f"queued {len(jobs)} cells as {', '.join(arrays) or 'nothing new'}{said}", file=sys.stderr, flush=True)

    def _wait(self, runs: list[Run]) -> None:
        """Until all cells are over; those whose job has gone without a word are queued again."""
        from asr_lab.sweep.state import OVER, state_of

        folder, left, looked = runs[0].folder.parent, self.max_requeues, time.monotonic()
        by_name = {run.name: run for run in runs}
        while True:
            cells = [c for c in state_of(folder).cells if c.name in by_name]
            if all(c.state in OVER for c in cells):
                break
            if left and time.monotonic() - looked > GONE_S:
                looked = time.monotonic()
                queued, _ = in_queue(folder)
                if gone := [by_name[c.name] for c in cells if c.state in WAITING and c.name not in queued]:
                    left -= 1
                    self._queue(gone)
            time.sleep(LOOK_S)
        if failed := [c for c in cells if c.state != "done"]:
            first = failed[0]
            raise RunError(
                f"{len(failed)} of {len(cells)} cells did not finish, first {first.name}: {first.state}: {first.reason}"
            )

    def _submit(self, folder: Path, runs: list[Run]) -> list[tuple[Run, str]]:
        """(cell, id of its job) of all, or of none at all"""
        alike: dict[tuple[int, int, bool], list[Run]] = defaultdict(list)
        for run in runs:
            alike[n_nodes(run), n_devices(run), run.config["trainer"].get("accelerator") == "cpu"].append(run)
        size = max_array_size()
        done: list[tuple[Run, str]] = []
        try:
            for shape, group in alike.items():
                for i in range(0, len(group), size):
                    done += self._submit_array(folder, group[i : i + size], *shape)
        except Exception as error:
            if done:
                subprocess.run(["scancel", *(job for _, job in done)], check=False, capture_output=True)
            lines = [line for line in str(error).splitlines() if line.strip()]
            message = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else repr(error))
            raise RunError(f"sbatch: {message.strip()}; nothing was queued") from error
        return done

    def _submit_array(
        self, folder: Path, runs: list[Run], nodes: int, devices: int, on_cpu: bool
    ) -> list[tuple[Run, str]]:
        import submitit

        from asr_lab.sweep.slurm_job import run_cell

        gpus = (0 if on_cpu else 1) if self.gpus == "auto" else int(self.gpus)
        options: dict[str, Any] = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "nodes": nodes,
            "ntasks_per_node": devices,
            "cpus_per_task": self.cpus_per_task,
            "gpus_per_node": gpus * devices or None,
            "mem": None if self.mem_gb is None else f"{round(1024 * self.mem_gb)}M",
        }
        executor = submitit.SlurmExecutor(folder / FOLDER / "%j", max_num_timeout=self.max_requeues)
        executor.update_parameters(
            **{k: v for k, v in options.items() if v is not None},
            job_name=runs[0].config["experiment"],
            time=self.minutes,
            signal_delay_s=self.signal_s,
            array_parallelism=self.at_once,
            setup=self.setup_lines or None,
            stderr_to_stdout=True,
            additional_parameters={"requeue": True} | self.sbatch,
        )
        args = ([str(run.folder) for run in runs], [self.max_requeues] * len(runs))
        jobs = executor.map_array(run_cell, *args)
        return [(run, job.job_id) for run, job in zip(runs, jobs, strict=True)]
