"""`asr-lab report --audio N`: recordings of the worst utterances inside the page."""

import base64
import io
import json
import re
from pathlib import Path

import pytest
import soundfile
import yaml

from asr_lab.errors import DataError
from asr_lab.report.collect import collect
from asr_lab.report.render import render
from asr_lab.report.summary import summarise
from asr_lab.report.worst import with_recordings, worst

from .conftest import composed, only_line, resolved, tiny
from .test_report import Tags, jsonl, row, write_cell


@pytest.fixture
def folder(tmp_path, tones):
    """One cell of the corpus of tones, wrong about four of its six test utterances."""
    cell = tmp_path / "outputs" / "tones" / "a"
    write_cell(cell, {"encoder": "bilstm", "seed": 1}, 0.2, n=3)
    lines = [json.loads(line) for line in tones.read_text().splitlines()]
    texts = {Path(r["audio_filepath"]).stem: r["text"] for r in lines if r["split"] == "test"}
    jsonl(
        cell / "hyps.test.jsonl",
        [
            row(0, text, text if i > 3 else "x " * i + "wrong", "s") | {"id": name}
            for i, (name, text) in enumerate(texts.items())
        ],
    )
    config = resolved(composed(*tiny(tones)))
    (cell / "config.yaml").write_text(yaml.safe_dump(config))
    return cell.parent


def clips(page):
    return [v for name, v in Tags(page).attributes if name == "src" and v.startswith("data:")]


def test_the_worst_are_heard_and_no_more_than_wanted(folder, tones):
    page = render(folder, audio=2)["html"].read_text()
    found = clips(page)
    assert len(found) == 2
    ids = re.findall(r'aria-label="Recording of ([^"]+)"', page)
    assert ids == [e.id for e in worst(summarise(collect(folder)).best_cell, "wer")][:2]
    for name, uri in zip(ids, found, strict=True):
        head, _, data = uri.partition(",")
        assert head == "data:audio/flac;base64"
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
        expected, _ = soundfile.read(tones.parent / f"{name}.wav")
        assert rate == 8000 and samples == pytest.approx(expected, abs=2 / 32768)
    assert "media-src data:" in page


def test_none_without_the_option_and_the_same_bytes_with_it(folder):
    page = render(folder)["html"].read_text()
    assert clips(page) == [] and "media-src" not in page and "<audio" not in page
    assert render(folder, audio=9)["html"].read_bytes() == render(folder, audio=9)["html"].read_bytes()
    assert len(clips(render(folder, audio=9)["html"].read_text())) == 4  # all that went wrong


def test_what_is_gone_is_said(folder, tones, tmp_path):
    config = yaml.safe_load((folder / "a" / "config.yaml").read_text())
    examples = worst(summarise(collect(folder)).best_cell, "wer")
    lines = [json.loads(line) for line in tones.read_text().splitlines()]
    lines = [r | {"audio_filepath": str(tones.parent / r["audio_filepath"])} for r in lines]
    gone, unknown = examples[0].id, examples[1].id
    for r in lines:
        if Path(r["audio_filepath"]).stem == gone:
            r["audio_filepath"], r["id"] = str(tmp_path / "nowhere.wav"), gone
        else:
            r["id"] = Path(r["audio_filepath"]).stem
    manifest = tmp_path / "manifest.jsonl"
    jsonl(manifest, [r for r in lines if r["id"] != unknown])
    config["data"]["manifest"] = str(manifest)
    heard = with_recordings(examples, config, 3)
    assert [e.silent for e in heard[:2]] == ["its recording cannot be read", "the corpus no longer knows it"]
    assert heard[2].clip and not heard[2].silent and not any(e.clip or e.silent for e in heard[3:])


def test_no_corpus_no_recordings_and_one_line(folder, asr_lab):
    config = yaml.safe_load((folder / "a" / "config.yaml").read_text())
    config["data"]["manifest"] = "/nowhere/manifest.jsonl"
    (folder / "a" / "config.yaml").write_text(yaml.safe_dump(config))
    done = asr_lab("report", "tones", "--audio", "2", cwd=folder.parents[1])
    assert "--audio: the corpus is not here" in only_line(done)
    (folder / "a" / "config.yaml").unlink()
    with pytest.raises(DataError, match="leave --audio out"):
        render(folder, audio=1)
    done = asr_lab("report", "tones", cwd=folder.parents[1])
    assert done.returncode == 0 and "outputs/tones/report.html" in done.stdout
