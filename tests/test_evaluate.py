"""Ways of decoding a finished run: what may change, every combination once, the test split with the chosen one only."""

import json
import shutil

import pytest
import torch

from asr_lab.errors import ConfigError, RunError
from asr_lab.evaluate import opened
from asr_lab.evaluate import sweep as sweeping
from asr_lab.evaluate.cell import Cell, Opened
from asr_lab.evaluate.frames import Frames
from asr_lab.evaluate.overrides import combinations, is_sweep, overridden
from asr_lab.evaluate.sweep import sweep
from asr_lab.files import read_jsonl
from asr_lab.run import Run

from .conftest import make_run, only_line, tiny

# A search that answers with the first `n_kept` labels that the model is told, so the best one is known.
PARROT = """
from asr_lab.types import Hypothesis

class Parrot:
    def __init__(self, decoder, tokenizer, train_texts, n_kept: int, label: str):
        if n_kept < 0:
            raise ValueError(f"decoding.n_kept={n_kept} is negative")
        self.decoder, self.label, self.n_kept = decoder, tokenizer.encode(label)[0], n_kept
        self.texts = train_texts

    def __call__(self, hidden, lens):
        return [[Hypothesis([self.label] * self.n_kept, 0.0)] for _ in lens]
"""
YAML = "_target_: parrot.Parrot\n_partial_: true\nn_kept: 1\nlabel: ${data.first_label}\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory, tones) -> Run:
    from asr_lab.train import train

    run = make_run(tmp_path_factory.mktemp("run") / "run", tiny(tones, "encoder=bilstm"))
    train(run)
    return run


@pytest.fixture
def run(original, tmp_path, monkeypatch) -> Run:
    """A copy of a trained run in a working folder that has the choice `decoding=parrot`."""
    folder = tmp_path / "run"
    shutil.copytree(original.folder, folder)
    (tmp_path / "conf" / "decoding").mkdir(parents=True)
    (tmp_path / "conf" / "decoding" / "parrot.yaml").write_text(YAML.replace("${data.first_label}", "a"))
    (tmp_path / "conf" / "decoding" / "named.yaml").write_text(YAML.replace("${data.first_label}", "${data.score}"))
    (tmp_path / "parrot.py").write_text(PARROT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return Run.open(folder)


def encodings(monkeypatch) -> list[str]:
    """The splits whose frames are computed from here on."""
    seen, real = [], Frames.__init__

    def init(self, parts, split, *args, **options):
        seen.append(split)
        real(self, parts, split, *args, **options)

    monkeypatch.setattr(Frames, "__init__", init)
    return seen


def quiet(cell, scores):
    pass


class TestOverrides:
    def test_lists_are_hydras(self):
        assert combinations(["decoding.beam=1,4", "lm=none", "lm.weight=range(1,3)"]) == [
            ["decoding.beam=1", "lm=none", "lm.weight=1"],
            ["decoding.beam=1", "lm=none", "lm.weight=2"],
            ["decoding.beam=4", "lm=none", "lm.weight=1"],
            ["decoding.beam=4", "lm=none", "lm.weight=2"],
        ]
        assert combinations(["decoding.beam=choice(2,3)"]) == [["decoding.beam=2"], ["decoding.beam=3"]]
        assert is_sweep(["decoding.beam=1,2"]) and not is_sweep(["decoding.beam=1", "lm.path='a,b'"])

    def test_a_value_changes_and_nothing_else_does(self, run):
        config = overridden(run, ["decoding.beam=3"])
        assert config["decoding"] == run.config["decoding"] | {"beam": 3}
        assert {k: v for k, v in config.items() if k != "decoding"} == {
            k: v for k, v in run.config.items() if k != "decoding"
        }

    def test_a_choice_has_its_own_values_and_reads_the_runs(self, run):
        config = overridden(run, ["decoding.n_kept=2", "decoding=named"])
        target = {"_target_": "parrot.Parrot", "_partial_": True}
        assert config["decoding"] == target | {"n_kept": 2, "label": run.config["data"]["score"]}

    @pytest.mark.parametrize(
        ("override", "line"),
        [
            ("encoder.d_hidden=3", "encoder.d_hidden: only decoding and lm can change on a finished run"),
            ("encoder=conformer", "encoder: only decoding and lm can change"),
            ("decoding.baem=3", "decoding.baem: no such key; did you mean 'decoding.beam'?"),
            ("lm.weight=3", "lm.weight: what this run has as lm has no values; choose another too"),
            ("+decoding.x=3", "give KEY=VALUE"),
            ("~lm", "give KEY=VALUE"),
            ("decoding.beam=interval(1,2)", "is no list of values"),
            ("decoding.beam=many", "beam as int"),
        ],
    )
    def test_what_cannot_change_is_one_line(self, run, override, line):
        with pytest.raises(ConfigError, match=line.replace("?", r"\?").replace("'", ".")):
            overridden(run, [override])


class TestFrames:
    def test_files_give_what_memory_gives_and_go_away(self, run, tmp_path):
        parts, _ = opened(run, "best")
        kept, spilt = (Frames(parts, "val", tmp_path / "spill", n) for n in (1 << 30, 0))
        assert len(list((tmp_path / "spill").glob(".frames-*/*.pt"))) == len(list(kept))
        for _ in range(2):  # read again and again
            for (batch, hidden, lens), (same, also, lens2) in zip(kept, spilt, strict=True):
                assert batch.ids == same.ids and torch.equal(hidden, also) and torch.equal(lens, lens2)
                assert batch.feats.numel() == 0
        del spilt
        assert not list((tmp_path / "spill").iterdir())


class TestCell:
    def test_the_runs_own_decoding_gives_the_runs_own_hypotheses(self, run):
        cell = Cell.of(Opened(run, "best"), ["decoding.beam=1"])
        scores = cell.scores("test")
        assert cell.rows("test") == read_jsonl(run.hyps_file("test"))
        assert scores["wer"] == pytest.approx(run.result()["metrics"]["test/wer"], rel=1e-5)
        assert scores["utterances"] == 6 and scores["real_time_factor"] > 0 and scores["peak_memory_mb"] > 1
        assert scores["audio_seconds"] == pytest.approx(sum(r["duration"] for r in cell.rows("test")), abs=1e-2)

    def test_what_was_scored_is_read_until_the_checkpoint_is_another(self, run, monkeypatch):
        seen = encodings(monkeypatch)
        before = Cell.of(Opened(run, "best"), ["decoding=parrot"]).scores("val")
        assert Cell.of(Opened(run, "best"), ["decoding=parrot"]).scores("val") == before
        assert seen == ["val"]
        path = run.best_checkpoint
        path.write_bytes(path.read_bytes())
        Cell.of(Opened(run, "best"), ["decoding=parrot"]).scores("val")
        assert seen == ["val", "val"]

    def test_a_run_without_checkpoint_is_one_line(self, run):
        shutil.rmtree(run.checkpoints)
        with pytest.raises(RunError, match="no checkpoint 'best'; none was saved"):
            Opened(run, "best")

    def test_a_broken_checkpoint_is_one_line(self, run):
        run.best_checkpoint.write_bytes(b"PK")
        with pytest.raises(RunError, match=r"best\.ckpt: cannot be loaded"):
            opened(run, "best")


class TestSweep:
    def test_the_best_on_val_is_the_only_one_on_test(self, run, monkeypatch):
        seen = encodings(monkeypatch)
        monkeypatch.setattr(sweeping, "_beside", recording(sweeping._beside, asked := []))
        path, answer = sweep(run, ["decoding=parrot", "decoding.n_kept=7,1,0"], ["test"], "best", quiet)
        # Of words over a to d an empty answer costs every word; a single "a" is sometimes one of them.
        rates = [cell["wer"] for cell in answer["cells"]]
        assert rates.index(min(rates)) == answer["chosen"]
        assert seen == ["val", "test"] and len(asked) == 1
        assert json.loads(path.read_text()) == answer
        folders = [run.folder / "evaluate" / cell["folder"] for cell in answer["cells"]]
        assert [(f / "hyps.test.jsonl").exists() for f in folders] == [i == answer["chosen"] for i in range(3)]
        assert all(len(read_jsonl(f / "hyps.val.jsonl")) == 6 for f in folders)

    def test_beside_it_stand_the_runs_own_numbers(self, run):
        _, answer = sweep(run, ["decoding=parrot", "decoding.n_kept=0,7"], ["test"], "best", quiet)
        found, own = answer["splits"]["test"], run.result()["metrics"]["test/wer"]
        assert answer["cells"][0]["wer"] == 1.0 and found["wer"] == 1.0
        assert found["run"][0] == pytest.approx(own)
        difference, low, high = found["difference"]
        assert difference == pytest.approx(1.0 - own) and low <= difference <= high
        assert json.loads(run.result_file.read_text()) == run.result()

    def test_an_interrupted_sweep_goes_on(self, run, monkeypatch):
        asked = []

        def stop(cell, scores):
            asked.append(cell)
            raise KeyboardInterrupt

        values = ["decoding=parrot", "decoding.n_kept=1,2,3"]
        with pytest.raises(KeyboardInterrupt):
            sweep(run, values, ["test"], "best", stop)
        calls = []
        real = Cell._searched
        monkeypatch.setattr(Cell, "_searched", lambda self, split: calls.append(split) or real(self, split))
        sweep(run, values, ["test"], "best", quiet)
        assert calls == ["val", "val", "test"]

    def test_equals_choose_the_first(self, run):
        _, answer = sweep(run, ["decoding=parrot", "decoding.n_kept=0,0"], ["test"], "best", quiet)
        assert answer["chosen"] == 0 and answer["cells"][1]["tied"]

    def test_a_split_that_is_not_there_is_said_before_anything_is_searched(self, run):
        with pytest.raises(RunError, match="no split 'tset'; did you mean 'test'"):
            sweep(run, ["decoding=parrot"], ["tset"], "best", quiet)
        assert not (run.folder / "evaluate").exists()

    def test_a_value_that_the_search_refuses_is_one_line(self, run):
        with pytest.raises(ConfigError, match="n_kept=-1 is negative"):
            sweep(run, ["decoding=parrot", "decoding.n_kept=-1,2"], ["test"], "best", quiet)


def recording(real, calls: list):
    def call(*args):
        calls.append(args)
        return real(*args)

    return call


class TestCommand:
    def test_one_cell(self, run, tmp_path, asr_lab):
        done = asr_lab("evaluate", str(run.folder), "decoding.beam=1", "--split", "val", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("val  wer ") and "of real time" in done.stdout
        [folder] = (run.folder / "evaluate").iterdir()
        assert folder.name.startswith("decoding.beam=1-") and str(folder) in done.stdout

    def test_lists_are_a_sweep_with_or_without_m(self, run, tmp_path, asr_lab):
        values = ["decoding=parrot", "decoding.n_kept=0,7"]
        done = asr_lab("evaluate", str(run.folder), *values, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "val WER %" in done.stdout and "chosen" in done.stdout
        assert "test WER 100.0 %" in done.stdout and "the run's own" in done.stdout
        again = asr_lab("evaluate", str(run.folder), *values, "-m", cwd=tmp_path)
        assert again.stdout == done.stdout

    @pytest.mark.parametrize(
        ("args", "line"),
        [
            (["-m"], "-m: nothing to choose from"),
            (["encoder=bilstm"], "encoder: only decoding and lm"),
            (["decoding=parot"], "decoding=parot: no such choice; did you mean 'parrot'?"),
            (["decoding.beam"], "decoding.beam"),
            (["decoding.beam=1", "--split", "vall"], "no split 'vall'"),
        ],
    )
    def test_mistakes_are_one_line(self, run, tmp_path, asr_lab, args, line):
        assert line in only_line(asr_lab("evaluate", str(run.folder), *args, cwd=tmp_path))
