"""Long tests: real speech is learnt, and an installed wheel works from any folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import make_run

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]

needs_corpora = pytest.mark.skipif(
    not os.environ.get("ASR_LAB_DATA"), reason="ASR_LAB_DATA is not set: no corpora here"
)


def run_cell(folder: Path, *overrides: str) -> dict:
    base = ["logger=none", "runtime.n_threads=1", "trainer.precision=bf16-mixed"]
    run = make_run(folder, [*base, *overrides])
    command = [sys.executable, "-m", "asr_lab.train", str(run.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(run.result_file.read_text())


@needs_corpora
def test_bilstm_learns_an4(tmp_path):
    """The development set was at 56 % WER after ten epochs of ten, and falls further with more."""
    result = run_cell(tmp_path / "run", "data=an4", "encoder=bilstm", "trainer.max_epochs=14", "optimizer.lr=2e-3")
    assert result["metrics"]["test/wer"] < 0.6


@needs_corpora
@pytest.mark.parametrize("corpus", ["fsdd", "yesno"])
def test_small_corpora_are_learnt(corpus, tmp_path):
    epochs, seconds = {"fsdd": (8, 12), "yesno": (50, 7)}[corpus]
    overrides = [
        f"data={corpus}",
        "encoder=bilstm",
        "size=tiny",
        f"batching.batch_seconds={seconds}",
        "optimizer.lr=2e-3",
        "augment=none",
    ]
    result = run_cell(tmp_path / "run", *overrides, f"trainer.max_epochs={epochs}")
    assert result["metrics"]["test/wer"] < 0.5


def test_an_installed_wheel_works_from_any_folder(tmp_path):
    """conf/ and experiments/ travel inside the package; it alone is installed, beside this environment."""
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        pytest.skip("uv is not in this environment")
    command = [uv, "build", "--wheel", "--out-dir", tmp_path, ROOT]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--target", target, wheel], check=True)
    assert (target / "asr_lab" / "conf" / "config.yaml").exists()
    assert (target / "asr_lab" / "experiments" / "smoke.yaml").exists()
    assert (target / "hydra_plugins" / "asr_lab.py").exists()
    assert (target / "asr_lab" / "dashboard" / "static" / "vendor" / "uplot" / "uPlot.esm.js").exists()
    env = {**os.environ, "PYTHONPATH": str(target)}
    where = "import asr_lab; print(asr_lab.__file__)"
    for command, said in (
        ([sys.executable, "-c", where], str(target)),
        ([sys.executable, "-m", "asr_lab", "train", "--cfg", "job"], "ConformerEncoder"),
        ([sys.executable, "-m", "asr_lab", "train", "--config-name", "smoke", "--cfg", "job"], "experiment: smoke"),
    ):
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
