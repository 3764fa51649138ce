"""The command line as a person types it: one line and exit status 2 for mistakes, earlier results untouched."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import only_line, tiny, write_tones


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["train", "encodr=bilstm"], "encodr: no such key; did you mean 'encoder'"),
        (["train", "encoder=bilstn"], "encoder=bilstn: no such choice; did you mean 'bilstm'"),
        (["train", "encoder.d_modle=3"], "encoder.d_modle: no such key; did you mean 'encoder.d_model'?"),
        (["train", "data=manifest"], "data.manifest is missing; give it as data.manifest=VALUE"),
        (["train", "seed=x"], "seed"),
        (["train", "trainer.max_epochs=abc"], "Trainer wants max_epochs as int, 'abc' came"),
        (["train", "clipping.threshold=0"], "clipping.threshold must be positive, 0 came"),
        (["train", "runtime.n_threads=none"], "runtime.n_threads is 'auto' or a positive count"),
        (["sweep", "smokee"], "no experiment 'smokee'; did you mean 'smoke'?"),
        (["report", "nothing"], "nothing"),
        (["evaluate", "nothing"], "no run 'nothing'"),
        (["data", "prepare", "an5"], "data=an5: no such choice"),
        (["data", "check", "nowhere.jsonl"], "nowhere.jsonl: cannot read the manifest"),
    ],
)
@pytest.mark.quick(5)
def test_mistakes_are_one_line(args, says, tmp_path, asr_lab):
    assert says in only_line(asr_lab(*args, cwd=tmp_path))


def test_unknown_subcommand(tmp_path, asr_lab):
    assert asr_lab("trian", cwd=tmp_path).returncode == 2


def test_as_a_module_and_as_a_command(tmp_path):
    for command in ([sys.executable, "-m", "asr_lab"], [str(Path(sys.executable).parent / "asr-lab")]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0
        assert done.stdout.startswith("asr-lab ")


def test_debug_shows_the_traceback(tmp_path, asr_lab):
    done = asr_lab("--debug", "report", "nothing", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


@pytest.mark.slow
def test_hydra_flags_keep_working_under_train(tmp_path, asr_lab):
    done = asr_lab("train", "--cfg", "job", "encoder=bilstm", cwd=tmp_path)
    assert done.returncode == 0
    assert "RecurrentEncoder" in done.stdout
    done = asr_lab("train", "--info", "defaults-tree", cwd=tmp_path)
    assert "encoder: conformer" in done.stdout
    lines = asr_lab("train", "--help", cwd=tmp_path).stdout.splitlines()
    assert any(line.startswith("encoder: ") and "bilstm" in line for line in lines)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("line", "offers"),
    [("asr-lab train encoder=", "encoder=bilstm"), ("asr-lab train encoder=conf", "encoder=conformer")],
)
def test_shell_completion(line, offers, tmp_path, asr_lab):
    done = asr_lab("-sc", "query=bash", cwd=tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
    assert offers in done.stdout.split()


def test_train_prints_the_result_and_says_when_it_is_done_already(tmp_path, tones, asr_lab):
    args = ["train", *tiny(tones, "encoder=bilstm", "trainer.max_steps=2"), "experiment=once"]
    done = asr_lab(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "outputs" / "once").iterdir()
    assert "test/wer" in done.stdout
    assert str(folder) in done.stdout
    stamp = (folder / "result.json").stat().st_mtime_ns
    again = asr_lab(*args, cwd=tmp_path)
    assert again.returncode == 0
    assert "done already" in again.stdout + again.stderr
    assert (folder / "result.json").stat().st_mtime_ns == stamp
    scored = asr_lab("evaluate", str(folder), "--split", "val", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert scored.stdout.startswith("val  wer ")
    mistake = asr_lab("evaluate", str(folder), "--split", "vall", cwd=tmp_path)
    assert "no split 'vall'; did you mean 'val'?" in only_line(mistake)
    mistake = asr_lab("evaluate", str(folder), "--checkpoint", "beast", cwd=tmp_path)
    assert "no checkpoint 'beast'; did you mean 'best'?" in only_line(mistake)


def break_everything(folder: Path) -> Path:
    """A manifest in which each kind of mistake stands once."""
    manifest = write_tones(folder, (10, 0, 0))
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    (folder / "train0.wav").unlink()
    (folder / "train1.wav").write_bytes(b"")
    (folder / "train2.wav").write_bytes((folder / "train2.wav").read_bytes()[:3000])
    (folder / "train3.wav").write_text("no audio at all, only words" * 20)
    rows[4]["sample_rate"] = 16000
    rows[5]["duration"] += 3
    rows[6]["text"] = "añb 9"
    rows[7]["text"] = " "
    rows[8]["text"] = "aaaa bbbb " * 10
    rows[9]["id"] = "train8"
    manifest.write_text("".join(json.dumps(r) + "\n" for r in rows) + "{broken\n")
    return manifest


def test_data_check_lists_everything_at_once(tmp_path, asr_lab):
    manifest = break_everything(tmp_path)
    done = asr_lab("data", "check", str(manifest), "--json", cwd=tmp_path)
    assert done.returncode == 2
    answer = json.loads(done.stdout)
    assert answer["counts"] == dict.fromkeys(
        [
            "unreadable line",
            "duplicated id",
            "characters outside the tokenizer",
            "empty text",
            "missing file",
            "empty file",
            "truncated file",
            "not audio",
            "wrong sampling rate",
            "duration that lies",
            "too few frames",
            "split without utterances",
        ],
        1,
    )
    assert answer["problems"] == 12
    assert not answer["ok"]
    where = {item["kind"]: item["where"] for item in answer["items"]}
    assert where["unreadable line"] == "manifest.jsonl:11"
    assert where["missing file"] == "train0"
    text = asr_lab("data", "check", str(manifest), cwd=tmp_path)
    assert text.returncode == 2
    assert "12 problems" in text.stdout
    assert all(kind in text.stdout for kind in answer["counts"])


def test_data_check_of_a_clean_corpus(tmp_path, tones, asr_lab):
    done = asr_lab("data", "check", str(tones), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    answer = json.loads(done.stdout)
    assert answer["ok"]
    assert answer["utterances"] == 36
    assert "no problems found" in asr_lab("data", "check", str(tones), cwd=tmp_path).stdout
