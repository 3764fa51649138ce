"""Cells on a real scheduler, a Slurm of one node that the test starts: preemption, time limits, a dying node."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from asr_lab.hold import holder
from asr_lab.ledger import read_events
from asr_lab.sweep.slurm_local import LocalSlurm, is_installed
from asr_lab.sweep.state import state_of

from ..conftest import tiny

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not is_installed() or os.geteuid() != 0, reason="needs slurm-wlm, munge and root"),
]

EXPERIMENT = """
defaults:
  - config
  - override encoder: bilstm
  - override logger: none
  - _self_
experiment: cluster
question: does it queue?
grid:
  clipping: [none, norm]
  repeat: 6
"""


@pytest.fixture
def slurm(tmp_path):
    """One of its own for each test: what a test leaves does not hold up the next one."""
    found = LocalSlurm(tmp_path / "slurm", max_array_size=9)
    found.start()
    yield found
    found.stop()
    for path in Path("/proc").glob("[0-9]*/cmdline"):  # commands whose shepherd was killed wait for ever
        with contextlib.suppress(OSError):
            if str(tmp_path).encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)


class Cluster:
    def __init__(self, here: Path, slurm: LocalSlurm, tones: Path, *more: str):
        (here / "experiments").mkdir()
        (here / "experiments" / "cluster.yaml").write_text(EXPERIMENT)
        own = [o for o in tiny(tones, "encoder=bilstm") if not o.startswith(("logger", "encoder=", "trainer.max"))]
        options = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", *own, *more]
        self.here, self.folder, self.slurm = here, here / "outputs" / "cluster", slurm
        self.sweep_args = ["sweep", "cluster", *options]
        self.waits_since: dict[str, float] = {}  # requeued jobs

    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "asr_lab", *args]
        env = os.environ | self.slurm.env | {"COLUMNS": "200"}
        return subprocess.run(command, cwd=self.here, env=env, capture_output=True, text=True, check=False)

    def sweep(self, *more: str) -> subprocess.CompletedProcess[str]:
        return self(*self.sweep_args, *more)

    def counts(self) -> dict[str, int]:
        return state_of(self.folder).counts

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        """Fails with all that may tell why."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                logs = sorted([*self.folder.glob("*/train.log"), *self.folder.glob(".slurm/*.out")])
                logs += sorted(self.slurm.folder.glob("*.log"))
                told = [f"{path}:\n{path.read_text(errors='replace')[-3000:]}" for path in logs]
                told += [str(cell) for cell in state_of(self.folder).cells]
                pytest.fail("\n".join([f"waited {seconds} s", *told, self.slurm.ask("squeue").stdout]))
            self._release()
            time.sleep(0.2)

    def preempt(self, job: str) -> None:
        """As a scheduler does. scancel tries again for a minute if the job has reacted before it was done itself."""
        command = ["timeout", "2", "scancel", "-s", "USR2", job]
        subprocess.Popen(command, env=os.environ | self.slurm.env, stderr=subprocess.DEVNULL)

    def _release(self) -> None:
        """Requeued jobs wait two minutes; here two seconds, for Slurm revokes what it gave out in the same second."""
        waiting = set()
        for line in self.slurm.ask("squeue", "-h", "-r", "-t", "PD", "-o", "%i|%r").stdout.splitlines():
            job, reason = line.split("|")
            if reason == "BeginTime":
                waiting.add(job)
                if time.monotonic() - self.waits_since.setdefault(job, time.monotonic()) > 2:
                    self.slurm.ask("scontrol", "update", f"jobid={job}", "StartTime=now")
        self.waits_since = {job: since for job, since in self.waits_since.items() if job in waiting}


def test_preempted_cells_go_on_from_their_checkpoints(tmp_path, tones, slurm):
    cluster = Cluster(tmp_path, slurm, tones, "trainer.max_epochs=120", "+hydra.launcher.sbatch.hold=true")
    done = cluster.sweep()
    assert done.returncode == 0, done.stderr
    arrays = done.stderr.strip().rpartition(" as ")[2].split(", ")
    assert "queued 12 cells" in done.stderr and len(arrays) == 2  # the limit is 8
    # Submitted and back: another shell sees them.
    seen = json.loads(cluster("status", "cluster", "--json").stdout)
    assert seen["total"] == seen["queued"] == 12
    again = cluster.sweep()
    assert again.returncode == 0 and "queued 0 cells" in again.stderr, again.stderr
    slurm.ask("scontrol", "release", *arrays)
    signalled: set[str] = set()

    def all_signalled() -> bool:
        for cell in state_of(cluster.folder).cells:
            if cell.state == "running" and cell.step and cell.name not in signalled:
                assert cell.job
                cluster.preempt(cell.job)
                signalled.add(cell.name)
        return len(signalled) == 12

    cluster.wait_for(all_signalled, 400)

    def all_done() -> bool:
        if not slurm.jobs() and cluster.counts()["preempted"]:  # one died otherwise: the next launch finds it
            assert cluster.sweep().returncode == 0
            slurm.ask("scontrol", "release", *slurm.jobs())
        return cluster.counts()["done"] == 12

    cluster.wait_for(all_done, 400)
    results = [json.loads(p.read_text()) for p in cluster.folder.glob("*/result.json")]
    assert all(r["resumed_at_step"] > 0 for r in results)
    report = cluster("report", "cluster")
    assert report.returncode == 0, report.stderr


def test_a_time_limit_saves_and_queues_again(tmp_path, tones, slurm):
    # Slurm looks at time limits once in a while: the signal may come up to a minute early.
    limit = ["hydra.launcher.minutes=2", "hydra.launcher.signal_s=20", "clipping=norm", "seed=1"]
    cluster = Cluster(tmp_path, slurm, tones, "trainer.max_epochs=100000", *limit)
    assert cluster.sweep().returncode == 0

    def requeued() -> bool:
        return any((p.parent / "train.log").read_text().count("going on from step") >= 1 for p in logs(cluster))

    cluster.wait_for(requeued, 400)
    said = cluster("cancel", "cluster")
    assert said.returncode == 0
    cluster.wait_for(lambda: cluster.counts()["cancelled"] == 1, 120)
    cluster.wait_for(lambda: not slurm.jobs(), 120)


def test_a_node_that_dies_loses_nothing(tmp_path, tones, slurm):
    """Slurm's daemon, its job's shepherd and the cell's process are killed in turn; whatever Slurm makes of it, cells
    end done: it queues them again, or the next launch finds them gone."""
    cluster = Cluster(tmp_path, slurm, tones, "trainer.max_epochs=150", "seed=1,2")
    assert cluster.sweep().returncode == 0
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    victims = ["slurmd", "slurmd", "slurmstepd", "cell", "slurmstepd", "slurmd"]
    rng.shuffle(victims)
    launched = time.monotonic()

    def all_done() -> bool:
        nonlocal launched
        cells = state_of(cluster.folder).cells
        if victims and any(c.state == "running" and c.step for c in cells):
            time.sleep(rng.uniform(0, 0.5))
            kill(victims.pop(), slurm, cluster)
        elif time.monotonic() - launched > 15 and any(c.state == "preempted" for c in cells):
            assert cluster.sweep().returncode == 0  # a job whose shepherd was killed is cancelled by this
            launched = time.monotonic()
        return all(c.state == "done" for c in cells)

    cluster.wait_for(all_done, 600)
    assert len(victims) < 3  # the cells may be over before all were killed
    done = Counter(e.cell for e in read_events(cluster.folder)[0] if e.state == "done")
    assert set(done.values()) == {1}


def kill(what: str, slurm: LocalSlurm, cluster: Cluster) -> None:
    if what == "slurmd":
        slurm.kill("slurmd")
        time.sleep(0.5)
        slurm.start_slurmd()
    elif what == "slurmstepd":
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                is_shepherd = (path.parent / "comm").read_text().startswith("slurmstepd")
                if is_shepherd and str(slurm.folder).encode() in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)
    else:
        for path in cluster.folder.glob("*/.lock"):
            if (who := holder(path.parent)) and who.is_alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(who.pid, signal.SIGKILL)


def test_ranks_of_a_cell_are_tasks_of_its_job(tmp_path, tones, slurm):
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "clipping=norm", "seed=1"]
    cluster = Cluster(tmp_path, slurm, tones, *ddp, "trainer.max_epochs=60")
    done = cluster.sweep()
    assert done.returncode == 0, done.stderr

    def is_training() -> bool:
        [cell] = state_of(cluster.folder).cells
        if cell.state == "running" and cell.step:
            assert cell.job
            cluster.preempt(cell.job)  # both ranks hear it
            return True
        return False

    cluster.wait_for(is_training, 200)

    cluster.wait_for(lambda: cluster.counts()["done"] == 1, 200)
    [result] = [json.loads(p.read_text()) for p in cluster.folder.glob("*/result.json")]
    assert result["resumed_at_step"] > 0
    assert (result_folder(cluster) / "hyps.test.jsonl").read_text().count("\n") == 6


def test_mistakes_queue_nothing(tmp_path, tones, slurm):
    cluster = Cluster(tmp_path, slurm, tones)
    for more, said in (
        (["hydra.launcher.partition=gpus"], "partition=gpus: no such partition; choose from: debug"),
        (["+hydra.launcher.sbatch.nodelist=nowhere"], "nothing was queued"),
        (["hydra.launcher.minutes=0"], "hydra.launcher.minutes must be positive"),
    ):
        done = cluster.sweep(*more)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr.strip().splitlines()[-1]
    assert not slurm.jobs()
    slurm.kill("slurmctld")
    try:
        done = cluster.sweep()
        assert done.returncode == 2 and "is Slurm up?" in done.stderr.strip().splitlines()[-1]
    finally:
        slurm._run("slurmctld")


def result_folder(cluster: Cluster) -> Path:
    [path] = cluster.folder.glob("*/result.json")
    return path.parent


def logs(cluster: Cluster) -> list[Path]:
    return list(cluster.folder.glob("*/train.log"))
