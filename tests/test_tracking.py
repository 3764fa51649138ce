"""Loggers: W&B against a stand-in of its service, TensorBoard, CSV, trackio. No account; traffic on 127.0.0.1 only."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from asr_lab.errors import ConfigError, ExplodedError
from asr_lab.sweep.wandb_sweep import sweep_config
from asr_lab.tracking import End
from asr_lab.tracking.files import Looks, Rows, utterances
from asr_lab.tracking.follow import Follow
from asr_lab.tracking.state import State

from .conftest import make_run, only_line, tiny
from .wandb_server import assert_same_rows, steps_of

# What an online run waits for; a busy machine takes its time.
PATIENT = ("logger.wait_s=60", "logger.finish_timeout_s=60", "logger.poll_s=0.2")


def test_wandb_online_has_what_its_users_expect(trained, service):
    run, result = trained(
        "encoder=bilstm", "logger=wandb", "trainer.log_every_n_steps=1", "gradients.every=2", *PATIENT
    )
    served = service.runs[run.fingerprint]
    assert_same_rows(served, run)
    assert {"groupName": "adhoc", "jobType": "bilstm", "displayName": "run", "project": "asr_lab"}.items() <= {
        k: served.values[k] for k in ("groupName", "jobType", "displayName", "project")
    }.items()
    assert "encoder=bilstm" in served.values["tags"]
    assert served.config["encoder"]["value"]["d_hidden"] == run.config["encoder"]["d_hidden"]
    assert served.config["factors"]["value"]["clipping"] == "norm"
    defined = json.dumps(served.config["_wandb"]["value"]["m"])
    assert "val/wer" in defined and "trainer/global_step" in defined
    assert served.summary["test/wer"] == pytest.approx(result["metrics"]["test/wer"])
    assert served.summary["val/wer"]["min"] == min(v["val/wer"] for v in steps_of(run).values() if "val/wer" in v)
    assert served.summary["parameters"] == result["parameters"]
    assert served.exitcode == 0 and not served.preempting
    assert "gradient_log10/decoder.output" in next(r for r in served.rows if "val/wer" in r)
    # The table of test utterances, each with its sound.
    [table] = service.artifacts_of("run_table")
    shown = json.loads(table["files"]["samples.table.json"])
    assert shown["columns"][:4] == ["id", "audio", "ref", "hyp"] and len(shown["data"]) == 6
    sounds = [row[1]["path"] for row in shown["data"]]
    assert all(table["files"][path].startswith(b"RIFF") for path in sounds)
    # Lineage: the data are used, the model is made.
    [data], [model] = service.artifacts_of("dataset"), service.artifacts_of("model")
    assert served.used == [data["id"]] and data["metadata"]["digest"] == run.result()["data"]["digest"]
    assert model["runs"] == [run.fingerprint] and "best" in model["aliases"]
    assert model["files"]["best.ckpt"] == run.best_checkpoint.read_bytes()
    state = State(run.folder, "wandb")
    assert state["complete"] and state["url"].endswith(f"/runs/{run.fingerprint}")


@pytest.mark.slow
def test_wandb_offline_then_sync(trained, service, asr_lab, tmp_path, capfd):
    run, result = trained("encoder=bilstm", "logger=wandb_offline", *PATIENT, name="adhoc/cell")
    assert not service.asked
    [folder] = (run.folder / "wandb").glob("offline-run-*")
    assert [f.name for f in folder.glob("*.wandb")] == [f"run-{run.fingerprint}.wandb"]
    assert State(run.folder, "wandb")["missing"] == "offline"
    done = asr_lab("wandb", "sync", "adhoc", "--outputs", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"cell: sent ({folder.name}, its result)\n"
    served = service.runs[run.fingerprint]
    assert_same_rows(served, run)
    assert served.exitcode == 0 and served.summary["test/wer"] == pytest.approx(result["metrics"]["test/wer"])
    assert {a["type"] for a in service.artifacts.values()} == {"run_table", "dataset", "model"}
    asked = service.asked.copy()
    again = asr_lab("wandb", "sync", "adhoc", "--outputs", str(tmp_path), cwd=tmp_path)
    assert again.stdout == "cell: complete already\n" and service.asked == asked


@pytest.mark.slow
def test_an_explosion_sends_an_alert(trained, service, monkeypatch, tmp_path):
    from asr_lab.task import SpeechTask

    real = SpeechTask.training_step
    monkeypatch.setattr(SpeechTask, "training_step", lambda self, *a: real(self, *a) * float("inf"))
    with pytest.raises(ExplodedError):
        trained("encoder=bilstm", "max_nonfinite_steps=2", "logger=wandb", *PATIENT, name="run")
    [served] = service.runs.values()
    titles = [alert["title"] for alert in served.alerts]
    assert "run: Training exploded" in titles and "run: step 0 is not finite" in titles
    assert served.exitcode == 1 and served.summary["status"] == "exploded"
    assert State(tmp_path / "run", "wandb")["complete"]  # nothing more will come


def test_sync_says_in_one_line_that_the_service_is_away(tones, tmp_path, asr_lab):
    run = make_run(tmp_path / "adhoc" / "cell", tiny(tones, "encoder=bilstm", "logger=wandb"))
    run.write_result(status="done")
    run.metrics_file.write_text('{"step": 0, "epoch": 0, "seconds": 1.0, "train/loss": 1.0}\n')
    away = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "x" * 40}
    arguments = ("wandb", "sync", "adhoc", "--outputs", str(tmp_path), "--init-timeout-s", "1")
    said = only_line(asr_lab(*arguments, cwd=tmp_path, **away))
    assert said.startswith("asr-lab: W&B at http://127.0.0.1:9 cannot be reached (") and "nothing is lost" in said


def test_sync_without_anything_of_wandb(tones, tmp_path, asr_lab):
    make_run(tmp_path / "adhoc" / "cell", tiny(tones, "encoder=bilstm", "logger=csv"))
    said = only_line(asr_lab("wandb", "sync", "adhoc", "--outputs", str(tmp_path), cwd=tmp_path))
    assert "none of 1 runs was trained with logger=wandb" in said and "--project" in said
    assert "did you mean 'adhoc'" in only_line(
        asr_lab("wandb", "sync", "adhok", "--outputs", str(tmp_path), cwd=tmp_path)
    )


@pytest.mark.slow
def test_summary_and_workspace_of_an_experiment(trained, service, asr_lab, tmp_path):
    pytest.importorskip("wandb_workspaces", reason="extra 'wandb-workspaces' is not installed")
    for clipping in ("none", "norm"):
        trained("encoder=bilstm", f"clipping={clipping}", "experiment=two", name=f"two/{clipping}")
    where = ("--outputs", str(tmp_path), "--project", "p")
    assert asr_lab("wandb", "sync", "two", *where, cwd=tmp_path).returncode == 0
    done = asr_lab("wandb", "summary", "two", *where, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{service.url}/someone/p/runs/summary-two\n"
    served = service.runs["summary-two"]
    assert (served.values["groupName"], served.values["jobType"]) == ("two", "summary")
    assert served.summary["cells/done"] == 2 and served.summary["answer"].startswith("Best configuration")
    tables = {
        f: json.loads(a["files"][f]) for a in service.artifacts_of("run_table") for f in a["files"] if "table" in f
    }
    board = tables["leaderboard.table.json"]
    rows = [dict(zip(board["columns"], row, strict=True)) for row in board["data"]]
    assert len(rows) == 2 and {r["configuration"] for r in rows} == {"none", "norm"}
    assert all(r["low"] <= r["test/wer"] <= r["high"] for r in rows) and rows[0]["mark"] == "best"
    [report] = service.artifacts_of("report")
    assert report["files"]["report.html"] == (tmp_path / "two" / "report.html").read_bytes()
    models = {a["id"] for a in service.artifacts_of("model")}
    assert len(models) == 2 and len(models & set(served.used)) == 1  # that of the best one
    done = asr_lab("wandb", "workspace", "two", *where, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith(f"{service.url}/someone/p?nw="), done.stderr
    [view] = service.views
    assert (
        view["displayName"] == "asr_lab two" and "factors.value.clipping" in view["spec"] and "test/wer" in view["spec"]
    )


class TestRows:
    """metrics.jsonl while it grows"""

    def write(self, file: Path, *steps: int, **values: float) -> None:
        with open(file, "a") as f:
            for step in steps:
                f.write(json.dumps({"step": step, "epoch": 0, "seconds": 1.0} | values) + "\n")

    def test_a_step_is_given_once_it_is_whole(self, tmp_path):
        file = tmp_path / "metrics.jsonl"
        rows = Rows(file)
        assert list(rows.new(is_over=False)) == []
        self.write(file, 0, 1, loss=1.0)
        assert list(rows.new(is_over=False)) == [(0, {"epoch": 0, "loss": 1.0})]
        self.write(file, 1, wer=0.5)
        assert list(rows.new(is_over=False)) == []
        with open(file, "a") as f:
            f.write('{"step": 2, "ep')  # torn
        assert list(rows.new(is_over=False)) == []
        assert list(rows.new(is_over=True)) == [(1, {"epoch": 0, "loss": 1.0, "wer": 0.5})]

    def test_a_resumed_run_repeats_nothing_and_skips_nothing(self, tmp_path):
        file = tmp_path / "metrics.jsonl"
        rows = Rows(file)
        self.write(file, *range(6), loss=1.0)
        assert [s for s, _ in rows.new(is_over=False)] == [0, 1, 2, 3, 4]
        (tmp_path / "new").write_text("")
        self.write(tmp_path / "new", *range(3), loss=1.0)  # as a resume from step 3 leaves it
        (tmp_path / "new").rename(file)
        self.write(file, *range(3, 9), loss=2.0)
        assert [s for s, _ in rows.new(is_over=True)] == [5, 6, 7, 8]
        rows.rewind(7)
        assert [s for s, _ in rows.new(is_over=True)] == [7, 8]


class Recorded:
    """A copy that only remembers; `fails` so many of its rows."""

    def __init__(self, has: int = 0, fails: int = 0):
        self.rows, self.fails, self.n_opened, self.end = list(range(has)), fails, 0, None

    def open(self) -> int:
        self.n_opened += 1
        return len(self.rows)

    def log(self, step, values, gradients) -> None:
        if self.fails and step == 3:
            self.fails -= 1
            raise ConnectionResetError("Connection lost")
        self.rows.append(step)

    def alert(self, title, text, is_error) -> None:
        self.alerts = [*getattr(self, "alerts", []), title]

    def finish(self, end: End) -> str:
        self.end = end
        return ""

    def abandon(self) -> None:
        pass


class TestFollow:
    @pytest.fixture
    def run(self, tones, tmp_path):
        run = make_run(tmp_path / "cell", tiny(tones, "encoder=bilstm"))
        run.metrics_file.write_text(
            "".join(json.dumps({"step": s, "epoch": 0, "seconds": 1.0}) + "\n" for s in range(6))
        )
        run.write_result(status="done")
        return run

    def follow(self, run, copy) -> State:
        state = State(run.folder, "wandb")
        follow = Follow(run, copy, state)
        follow.update()
        follow.end()
        return state

    def test_only_what_is_missing_is_sent(self, run):
        copy = Recorded(has=4)
        assert self.follow(run, copy)["complete"] and copy.rows == list(range(6))

    def test_a_client_that_dies_is_started_again(self, run):
        copy = Recorded(fails=2)
        assert self.follow(run, copy)["complete"]
        assert copy.rows == list(range(6)) and copy.n_opened == 3

    def test_one_that_dies_again_and_again_is_left_out(self, run, caplog):
        copy = Recorded(fails=9)
        state = self.follow(run, copy)
        assert not state["complete"] and state["missing"] == "Connection lost" and copy.n_opened == 3
        assert [r.getMessage() for r in caplog.records].pop().startswith("wandb: left out (Connection lost)")

    def test_the_last_step_of_a_killed_run_waits_for_its_resume(self, run):
        run.write_result(status="running")
        copy = Recorded()
        self.follow(run, copy)
        assert copy.rows == list(range(5)) and copy.end.status == "running"

    def test_findings_are_alerts_one_of_a_kind_even_after_a_resume(self, run):
        rows = [
            {"kind": k, "step": s, "layer": f"l{s}", "text": "why"} for s, k in enumerate(["dead", "dead", "stalled"])
        ]
        (run.folder / "findings.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        copy = Recorded()
        self.follow(run, copy)
        self.follow(run, copy)
        assert copy.alerts == ["cell: dead at step 0", "cell: stalled at step 2"]


def test_histograms_are_those_of_the_last_look(trained):
    from asr_lab.gradients.record import read_record

    run, _ = trained("encoder=bilstm", "gradients.every=2")
    record, looks = read_record(run.folder / "gradients.npz"), Looks(run.folder / "gradients.npz")
    n = sum(len(x) for x in looks.until(5).values())
    row = record.looks["elements"][list(record.looked).index(4)]
    assert n == np.count_nonzero(row) and looks.until(-1) == {}
    assert len(utterances(run, 4)) == 4 and all(u.audio for u in utterances(run, 4))


def test_csv(trained):
    run, _ = trained("encoder=bilstm", "logger=csv")
    rows = list(csv.DictReader((run.folder / "csv" / "metrics.csv").open()))
    assert any(row["val/wer"] for row in rows)


def test_tensorboard_has_curves_and_a_row_of_hparams(trained):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    run, result = trained("encoder=bilstm", "logger=tensorboard")
    events = event_accumulator.EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    assert {"val/wer", "train/loss", "final/test/wer"} <= set(events.Tags()["scalars"])
    [final] = events.Scalars("final/test/wer")
    assert final.value == pytest.approx(result["metrics"]["test/wer"])
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    started = plugin.HParamsPluginData.FromString(content).session_start_info
    assert started.hparams["encoder"].string_value == "bilstm" and started.hparams["seed"].number_value == 1
    assert events.summary_metadata["_hparams_/session_end_info"].plugin_data.content


@pytest.mark.slow
def test_trackio_has_rows_samples_and_scores(trained, tmp_path, monkeypatch):
    pytest.importorskip("trackio", reason="extra 'trackio' is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run, result = trained("encoder=bilstm", "logger=trackio", "trainer.log_every_n_steps=1", *PATIENT)
    code = (
        "import json, sys; from trackio import SQLiteStorage as s\n"
        "print(json.dumps([s.get_runs('asr_lab'), s.get_logs('asr_lab', 'adhoc.run')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, rows = json.loads(done.stdout.splitlines()[-1])
    assert names == ["adhoc.run"]
    found: dict[int, dict] = {}
    for row in rows:
        found.setdefault(row["step"], {}).update(row)
    ours = steps_of(run)
    assert list(found) == list(ours)
    assert found[3]["train/loss"] == pytest.approx(ours[3]["train/loss"])
    last = found[max(found)]
    assert last["final/test/wer"] == pytest.approx(result["metrics"]["test/wer"]) and "samples" in last
    assert State(run.folder, "trackio")["complete"]


def test_a_package_that_is_missing_is_said_before_training(monkeypatch, tones, tmp_path):
    from asr_lab.tracking import loggers

    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"logger=trackio: not installed; pip install 'asr-lab\[trackio\]'"):
        loggers.trackio(None, "p", 1.0, 1.0, 1.0)


class TestSweep:
    @pytest.mark.slow
    def test_a_grid_becomes_a_sweep_of_wandb(self, asr_lab, tmp_path):
        done = asr_lab("wandb", "sweep", "smoke", "trainer.max_epochs=1", cwd=tmp_path)
        sweep = yaml.safe_load(done.stdout)
        assert sweep["method"] == "grid" and sweep["metric"] == {"name": "val/wer", "goal": "minimize"}
        axes = {k: v["values"] for k, v in sweep["parameters"].items()}
        assert axes == {"encoder": ["bilstm", "conformer"], "clipping": ["none", "norm", "value"], "seed": [1, 2]}
        assert sweep["command"] == [
            "${env}", "${program}", "train", "--config-name", "smoke", "logger=wandb", "trainer.max_epochs=1",
            "${args_no_hyphens}",
        ]  # fmt: skip

    def write(self, folder: Path, grid: str) -> list[str]:
        text = "defaults:\n  - config\n  - _self_\nexperiment: own\nquestion: q\n" + grid
        (folder / "own.yaml").write_text("# @package _global_\n" + text)
        return ["--config-dir", str(folder), "--config-name", "own"]

    def test_values_are_in_the_grammar_of_hydra(self, tmp_path):
        grid = "grid:\n  augment: [none]\n  optimizer.betas: [[0.9, 0.98], [0.8, 0.9]]\n  optimizer.amsgrad: [true]\n"
        flags = self.write(tmp_path, grid)
        axes = {k: v["values"] for k, v in sweep_config(flags, [], "random", False)["parameters"].items()}
        assert axes["optimizer.betas"] == ["[0.9,0.98]", "[0.8,0.9]"] and axes["optimizer.amsgrad"] == ["true"]
        assert axes["augment"] == ["none"]

    def test_a_grid_that_is_no_product_is_refused(self, tmp_path):
        grid = "grid:\n  encoder: [lstm, gru]\n  seed: [1, 2]\n  exclude: [{encoder: gru, seed: 2}]\n"
        flags = self.write(tmp_path, grid)
        with pytest.raises(ConfigError, match=r"its grid has 3 cells, but its axes multiply to 4; .*--product"):
            sweep_config(flags, [], "grid", False)
        assert len(sweep_config(flags, [], "grid", True)["parameters"]) == 2
        with pytest.raises(ConfigError, match="there is no 'grit'; choose from: grid, random, bayes"):
            sweep_config(flags, [], "grit", True)
