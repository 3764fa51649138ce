"""What happens to the service of W&B, to its client and to the training itself: nothing costs a training anything,
and `asr-lab wandb sync` completes what has not arrived."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from asr_lab.tracking.state import State

from .conftest import make_run, tiny
from .wandb_server import assert_same_rows, steps_of

pytestmark = pytest.mark.slow

SHORT = (
    "encoder=bilstm", "logger=wandb", "trainer.log_every_n_steps=1", "logger.poll_s=0.1", "logger.init_timeout_s=2",
    "logger.finish_timeout_s=4", "logger.wait_s=40",
)  # fmt: skip
AT = 6  # the step at which something happens, of 10


@pytest.fixture
def at_step(monkeypatch):
    """`at_step(do)`: calls `do` once, in the middle of a training."""
    from asr_lab.task import SpeechTask

    real = SpeechTask.training_step

    def arrange(do: Callable[[], None]) -> None:
        left = [do]

        def step(self, *args):
            if self.trainer.global_step == AT and left:
                left.pop()()
            return real(self, *args)

        monkeypatch.setattr(SpeechTask, "training_step", step)

    return arrange


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, f"not within two minutes: {what}"
        time.sleep(0.05)


def followers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "asr_lab.tracking.follow" in p.cmdline()]


def cores() -> list[psutil.Process]:
    return [c for p in followers() for c in p.children() if c.name().startswith("wandb-core")]


def metrics_without_clock(run) -> dict:
    return {step: {k: v for k, v in row.items() if k != "seconds"} for step, row in steps_of(run).items()}


@pytest.fixture(scope="module")
def alone(tones, tmp_path_factory):
    """The same training with nobody to tell."""
    from asr_lab.train import train

    run = make_run(
        tmp_path_factory.mktemp("alone") / "cell", tiny(tones, "encoder=bilstm", "trainer.log_every_n_steps=1")
    )
    train(run)
    return run


def assert_unharmed(run, alone) -> None:
    """The training ended as it does without a logger, and its files are whole."""
    ours, theirs = run.result(), alone.result()
    assert ours["status"] == "done" and ours["metrics"] == theirs["metrics"]
    assert ours["fingerprint"] == theirs["fingerprint"]
    assert metrics_without_clock(run) == metrics_without_clock(alone)
    assert run.rows_file("test").read_text() == alone.rows_file("test").read_text()


def sync(asr_lab, service, run, tmp_path) -> str:
    """`asr-lab wandb sync` with the service healthy again; afterwards it has everything."""
    service.fault = ""
    done = asr_lab("wandb", "sync", "adhoc", "--outputs", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    served = service.runs[run.fingerprint]
    assert_same_rows(served, run)
    assert served.exitcode == 0 and served.summary["test/wer"] == pytest.approx(run.result()["metrics"]["test/wer"])
    assert any("samples" in row for row in served.rows)
    assert {"dataset", "model"} <= {a["type"] for a in service.artifacts.values()}
    assert State(run.folder, "wandb")["complete"]
    return done.stdout


@pytest.mark.parametrize("fault", ["away", "500", "hang", "disconnect"])
def test_no_service_from_the_start(fault, trained, service, alone, asr_lab, tmp_path, monkeypatch, caplog):
    service.fault = fault
    if fault == "away":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    run, _ = trained(*SHORT, name="adhoc/cell")
    assert_unharmed(run, alone)
    said = [r.getMessage() for r in caplog.records if r.name.startswith("asr_lab.tracking")]
    assert len(said) == 1 and "logging offline, upload later with `asr-lab wandb sync adhoc`" in said[0]
    assert list((run.folder / "wandb").glob("offline-run-*"))
    monkeypatch.setenv("WANDB_BASE_URL", service.url)
    assert "cell: sent (offline-run-" in sync(asr_lab, service, run, tmp_path)


@pytest.mark.parametrize("fault", ["500", "hang", "disconnect"])
def test_the_service_is_lost_within_a_run(fault, trained, service, alone, at_step, asr_lab, tmp_path):
    def lose() -> None:
        until(lambda: any(r.history for r in service.runs.values()), "rows at the service")
        service.fault = fault

    at_step(lose)
    run, _ = trained(*SHORT, name="adhoc/cell")
    assert_unharmed(run, alone)
    n_there = len(service.runs[run.fingerprint].history)
    assert 0 < n_there < len(steps_of(run))
    assert State(run.folder, "wandb")["complete"] is False
    sync(asr_lab, service, run, tmp_path)


def test_a_slow_service_gets_everything(trained, service, alone):
    service.fault = "slow"
    run, _ = trained(*SHORT, "logger.finish_timeout_s=60", "logger.init_timeout_s=20", name="adhoc/cell")
    assert_unharmed(run, alone)
    assert_same_rows(service.runs[run.fingerprint], run)
    assert State(run.folder, "wandb")["complete"]


def test_a_killed_core_is_replaced(trained, service, alone, at_step):
    """What the service already has is not sent again, and nothing is left out."""

    def kill() -> None:
        until(lambda: any(r.history for r in service.runs.values()), "rows at the service")
        for core in cores():
            core.send_signal(signal.SIGKILL)

    at_step(kill)
    run, _ = trained(*SHORT, "logger.finish_timeout_s=60", name="adhoc/cell")
    assert_unharmed(run, alone)
    assert service.asked["RunResumeStatus"] == 2
    assert_same_rows(service.runs[run.fingerprint], run)
    assert State(run.folder, "wandb")["complete"]


def test_a_killed_follower_is_made_up_for(trained, service, alone, at_step, asr_lab, tmp_path):
    def kill() -> None:
        until(lambda: any(r.history for r in service.runs.values()), "rows at the service")
        for follower in followers():
            follower.send_signal(signal.SIGKILL)

    at_step(kill)
    run, _ = trained(*SHORT, name="adhoc/cell")
    assert_unharmed(run, alone)
    assert 0 < len(service.runs[run.fingerprint].history) < len(steps_of(run))
    sync(asr_lab, service, run, tmp_path)


def test_a_run_without_its_offline_folder_is_rebuilt(trained, service, alone, asr_lab, tmp_path):
    import shutil

    run, _ = trained(*SHORT, "logger=wandb_offline", name="adhoc/cell")
    shutil.rmtree(run.folder / "wandb")
    (run.folder / "wandb.json").unlink()
    assert "cell: sent (metrics.jsonl from step 0)" in sync(asr_lab, service, run, tmp_path)


# A training that waits before step 8, three steps after its checkpoint, until a file is there.
WAITING = """
import pathlib, sys, time
from asr_lab.task import SpeechTask
from asr_lab.train import main
real, go = SpeechTask.training_step, pathlib.Path(sys.argv[2])
def step(self, *args):
    while self.trainer.global_step == 8 and not go.exists():
        time.sleep(0.05)
    return real(self, *args)
SpeechTask.training_step = step
sys.exit(main(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_preempted_run_goes_on_under_its_id(number, tones, service, alone, tmp_path):
    """Rows go on where they ended: no step twice, none left out."""
    run = make_run(tmp_path / "adhoc" / "cell", tiny(tones, *SHORT, "logger.finish_timeout_s=60"))
    command = [sys.executable, "-c", WAITING, str(run.folder), str(tmp_path / "go")]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    until(lambda: run.fingerprint in service.runs and len(service.runs[run.fingerprint].history) == 6, "rows")
    first.send_signal(number)
    (tmp_path / "go").touch()
    first.wait()
    served = service.runs[run.fingerprint]
    until(lambda: served.preempting and served.exitcode is not None, "the run to be marked as preempting")
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert list(service.runs) == [run.fingerprint]
    assert run.result()["resumed_at_step"] >= 5
    assert_same_rows(served, run)
    assert served.exitcode == 0 and State(run.folder, "wandb")["complete"]
    assert metrics_without_clock(run) == metrics_without_clock(alone)


def test_a_service_that_hangs_ends_a_sync_with_one_line(trained, service, tmp_path):
    trained(*SHORT, "logger=wandb_offline", name="adhoc/cell")
    service.fault = "hang"
    command = [sys.executable, "-m", "asr_lab", "wandb", "sync", "adhoc", "--outputs", str(tmp_path)]
    start = time.monotonic()
    done = subprocess.run([*command, "--init-timeout-s", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "cannot be reached" in done.stderr
    assert time.monotonic() - start < 60


def test_an_agent_of_a_sweep_trains_with_its_arguments(service, tones, tmp_path):
    """W&B's own agent runs the command that `asr-lab wandb sweep --create` has registered."""
    base = [o for o in tiny(tones, "encoder=bilstm", "trainer.max_steps=2") if not o.startswith("encoder.")]
    lines = [f"  - override {o.replace('=', ': ')}" for o in base if "." not in o.partition("=")[0]]
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "own.yaml").write_text(
        "# @package _global_\ndefaults:\n  - config\n" + "\n".join(lines) + "\n  - _self_\n"
        "experiment: own\nquestion: q\ngrid:\n  clipping: [value, norm]\n  seed: [3, 4]\n"
    )
    fixed = [o for o in base if "." in o.partition("=")[0]]
    asr_lab = [sys.executable, "-m", "asr_lab", "wandb", "sweep", "own", "--create", *fixed, *SHORT[1:]]
    run = {"cwd": tmp_path, "capture_output": True, "text": True}
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    done = subprocess.run(asr_lab, **run, check=False)
    assert done.returncode == 0, done.stderr
    agent = done.stdout.split()
    assert agent[:2] == ["wandb", "agent"]
    for _ in range(2):  # the second time the cell is done already, and the sweep is told so
        service.runs.clear()
        next(iter(service.sweeps.values()))["given"].clear()
        done = subprocess.run([sys.executable, "-m", *agent], **run, env=os.environ | {"PATH": path}, check=False)
        assert "agentrun" in service.runs, done.stderr[-2000:]
        served = service.runs["agentrun"]
        assert served.summary["status"] == "done", done.stderr[-2000:]
        assert served.config["factors"]["value"]["clipping"] == "value" and served.config["seed"]["value"] == 3
        assert served.values["sweep"] == "sweep0"
    assert len(list((tmp_path / "outputs" / "own").glob("*/result.json"))) == 1
