"""A sweep whose processes are killed at random, or whose disk fills up: every cell ends done, once."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from asr_lab.hold import holder
from asr_lab.ledger import read_events
from asr_lab.sweep.state import state_of

from ..conftest import tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

EXPERIMENT = """
defaults:
  - config
  - override encoder: bilstm
  - override logger: none
  - _self_
experiment: faults
question: does it survive?
grid:
  encoder: [rnn, bilstm]
  clipping: [none, norm, value]
  repeat: 4
"""
KILLS = 100


class Sweep:
    """The experiment in a folder of its own, launched as often as needed."""

    def __init__(self, here: Path, tones: Path, *more: str):
        (here / "experiments").mkdir(parents=True)
        (here / "experiments" / "faults.yaml").write_text(EXPERIMENT)
        own = [o for o in tiny(tones, "encoder=bilstm") if not o.startswith(("logger", "encoder=", "trainer.max"))]
        self.here, self.folder = here, here / "outputs" / "faults"
        launcher = ["hydra.launcher.n_jobs=2", "hydra.launcher.max_deaths=1000"]
        heard = ["env", "--default-signal=INT"]  # tests that run in the background may have been told to ignore it
        self.command = [*heard, sys.executable, "-m", "asr_lab", "sweep", "faults", *own, *launcher, *more]

    def launch(self) -> subprocess.Popen:
        with open(self.here / "launch.log", "ab") as out:
            return subprocess.Popen(self.command, cwd=self.here, stdout=out, stderr=out, start_new_session=True)

    def run(self) -> int:
        return self.launch().wait()

    def results(self) -> dict[str, dict]:
        paths = self.folder.glob("*/result.json")
        return {json.dumps(r["factors"], sort_keys=True): r for r in (json.loads(p.read_text()) for p in paths)}

    def said(self) -> str:
        return (self.here / "launch.log").read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tones) -> Sweep:
    sweep = Sweep(tmp_path_factory.mktemp("undisturbed"), tones, "trainer.max_epochs=12")
    assert sweep.run() == 0, sweep.said()
    return sweep


def test_every_cell_ends_done_once_whatever_is_killed(tmp_path, tones, undisturbed):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    victims = ["worker"] * (KILLS - 8) + ["nursery"] * 3 + ["launcher"] * 5
    rng.shuffle(victims)
    for i in range(20):  # a fast machine is over before all are killed, and sweeps again
        sweep = Sweep(tmp_path / str(i), tones, "trainer.max_epochs=12")
        disturb(sweep, victims, rng)
        assert_all_done_once(sweep, undisturbed)
        if not victims:
            break
    assert not victims


def disturb(sweep: Sweep, victims: list[str], rng: random.Random) -> None:
    """Run a sweep to its end while `victims` are killed, the last first."""
    launcher = sweep.launch()
    while victims:
        time.sleep(rng.uniform(0.05, 0.7))
        if launcher.poll() is not None:
            if is_over(sweep):
                return
            launcher = sweep.launch()
            continue
        running = workers(sweep)
        if not running and rng.random() < 0.98:  # it mostly imports: a launch is rarely killed that early
            continue
        pids = {"worker": running, "nursery": children(launcher.pid), "launcher": [launcher.pid]}[victims[-1]]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(pids), rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                victims.pop()
    for _ in range(10):
        code = launcher.wait()
        if code == 0 and is_over(sweep):
            break
        launcher = sweep.launch()


def assert_all_done_once(sweep: Sweep, undisturbed: Sweep) -> None:
    state = state_of(sweep.folder)
    assert state.counts["done"] == len(state.cells) == 24, sweep.said()
    assert_as_undisturbed(sweep, undisturbed)
    done = Counter(e.cell for e in read_events(sweep.folder)[0] if e.state == "done")
    assert max(done.values()) == 1
    # Nothing torn: everything reads, and no half-written file stays.
    for path in sweep.folder.rglob("*.jsonl"):
        lines = path.read_text().splitlines()
        assert all(json.loads(line) for line in (lines if path.parent.name != "ledger" else lines[:-1]))
    assert not list(sweep.folder.rglob(".*.tmp"))


def test_two_launches_share_the_cells(tmp_path, tones, undisturbed):
    sweep = Sweep(tmp_path, tones, "trainer.max_epochs=12", "hydra.launcher.n_jobs=1")
    first = sweep.launch()
    second = sweep.launch()
    assert first.wait() == second.wait() == 0, sweep.said()
    running = [e for e in read_events(sweep.folder)[0] if e.state == "running"]
    assert sorted(Counter(e.cell for e in running).values()) == [1] * 24
    assert_as_undisturbed(sweep, undisturbed)


def test_cells_of_a_killed_launcher_save_and_end(tmp_path, tones):
    sweep = Sweep(tmp_path, tones, "trainer.max_epochs=400")
    launcher = sweep.launch()
    wait_for(lambda: len(workers(sweep)) == 2 and all_have_steps(sweep))
    launcher.send_signal(signal.SIGKILL)
    wait_for(lambda: not workers(sweep))
    results = [r for r in sweep.results().values() if r["status"] != "planned"]
    assert {r["status"] for r in results} == {"preempted"}
    assert all((sweep.folder / r["cell"] / "ckpt" / "last.ckpt").exists() for r in results)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, tones):
    sweep = Sweep(tmp_path, tones, "trainer.max_epochs=400", "clipping=none", "seed=1")
    launcher = sweep.launch()
    wait_for(lambda: len(workers(sweep)) == 2 and all_have_steps(sweep))
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(60) == 130
    assert "save where they are" in sweep.said() and "goes on" in sweep.said()
    assert state_of(sweep.folder).counts["preempted"] == 2


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_disk_that_fails_is_a_clear_stop_and_the_sweep_goes_on(tmp_path, tones, undisturbed, fault):
    disk = tmp_path / "work" / "outputs"
    sweep = Sweep(tmp_path / "work", tones, "trainer.max_epochs=12")
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        launcher = sweep.launch()
        wait_for(lambda: sum(r["status"] == "done" for r in sweep.results().values()) >= 3)
        if fault == "full":
            (disk / "ballast").write_bytes(b"")
            with contextlib.suppress(OSError), open(disk / "ballast", "wb") as f:
                while True:
                    f.write(b"0" * 65536)
                    f.flush()
        else:
            # A second mount on top: one with open files would refuse to become read-only.
            subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
            read_only = ["mount", "-o", "remount,bind,ro", str(disk)]  # refused while a file is being written there
            wait_for(lambda: not subprocess.run(read_only, check=False, stderr=subprocess.DEVNULL).returncode)
        assert launcher.wait(120) in (1, 2), sweep.said()
        last = [line for line in sweep.said().splitlines() if line.startswith("asr-lab:")][-1]
        assert "space" in last or "cannot write" in last
        if fault == "full":
            (disk / "ballast").unlink()
        else:
            subprocess.run(["umount", str(disk)], check=True)
        assert sweep.run() == 0, sweep.said()
        assert_as_undisturbed(sweep, undisturbed)
    finally:
        while not subprocess.run(["umount", "-l", str(disk)], check=False, stderr=subprocess.DEVNULL).returncode:
            pass


def assert_as_undisturbed(sweep: Sweep, undisturbed: Sweep) -> None:
    ours, theirs = sweep.results(), undisturbed.results()
    assert ours.keys() == theirs.keys()
    for key, result in ours.items():
        assert result["metrics"] == theirs[key]["metrics"], f"{key}: {result['status']}: {result['reason']}"
        cells = [s.folder / r["cell"] / "hyps.test.jsonl" for s, r in ((sweep, result), (undisturbed, theirs[key]))]
        assert cells[0].read_text() == cells[1].read_text()


def is_over(sweep: Sweep) -> bool:
    return (sweep.folder / "sweep.json").exists() and state_of(sweep.folder).counts["done"] == 24


def workers(sweep: Sweep) -> list[int]:
    """Processes that train a cell now"""
    found = [holder(path.parent) for path in sweep.folder.glob("*/.lock")]
    return [who.pid for who in found if who and who.is_alive]


def all_have_steps(sweep: Sweep) -> bool:
    cells = [path.parent for path in sweep.folder.glob("*/.lock")]
    return len(cells) == 2 and all((cell / "ckpt" / "last.ckpt").exists() for cell in cells)


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def wait_for(condition, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.1)
