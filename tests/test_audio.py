"""Audio in: formats by content, channels, segments, members of tars, rates; what a file has not is one line."""

import io
import json
import tarfile

import numpy as np
import pytest
import soundfile
import torch

from asr_lab.build import build_data, make
from asr_lab.data import audio, check
from asr_lab.data.manifest import Utterance, parse_manifest
from asr_lab.errors import DataError
from asr_lab.sweep.cell import resolved

from .conftest import RATE, composed, tiny, write_tones

SECONDS = 2.0
T = np.arange(int(SECONDS * RATE)) / RATE
LEFT, RIGHT = 0.4 * np.sin(2 * np.pi * 440 * T), 0.2 * np.sin(2 * np.pi * 1000 * T)


def pitch(samples: np.ndarray, rate: int) -> float:
    """Hz of the strongest component."""
    return np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples)


@pytest.fixture
def stereo(tmp_path):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([LEFT, RIGHT], axis=1), RATE)
    return path


# Formats


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("extension", ["", "wav", "flac", "dat"])
def test_content_decides_not_the_name(tmp_path, kind, extension):
    path = tmp_path / f"a.{extension or kind}"
    soundfile.write(path, LEFT, RATE, format=kind.upper())
    info = audio.probe(path)
    samples, rate = audio.read(path)
    assert (info.sample_rate, rate, samples.dtype, samples.ndim) == (RATE, RATE, np.float32, 1)
    assert len(samples) == info.n_samples == pytest.approx(len(LEFT), abs=0.05 * RATE)
    assert pitch(samples, rate) == pytest.approx(440, abs=1)
    assert np.sqrt(np.mean(samples[2000:-2000] ** 2)) == pytest.approx(0.4 / np.sqrt(2), rel=0.03)
    if kind in ("wav", "flac"):
        np.testing.assert_allclose(samples, LEFT, atol=1e-4)


# Channels


def test_a_channel_is_chosen_or_all_are_averaged(stereo):
    np.testing.assert_allclose(audio.read(stereo)[0], (LEFT + RIGHT) / 2, atol=1e-4)
    np.testing.assert_allclose(audio.read(stereo, channel=0)[0], LEFT, atol=1e-4)
    np.testing.assert_allclose(audio.read(stereo, channel=1)[0], RIGHT, atol=1e-4)
    with pytest.raises(DataError, match=r"channel not in the file: .*stereo.wav has 2, number 2 \(from 0\) is wanted"):
        audio.read(stereo, channel=2)


@pytest.mark.parametrize(("wanted", "hz"), [(0, 440), (1, 1000), ("mix", 440)])
def test_a_line_can_name_its_channel_and_the_corpus_the_rest(tmp_path, stereo, wanted, hz):
    rows = [
        {
            "id": f"{split}{i}",
            "audio_filepath": stereo.name,
            "duration": SECONDS,
            "text": "a",
            "split": split,
            **channel,
        }
        for split in ("train", "val", "test")
        for i, channel in enumerate(({"channel": 1}, {}))
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = resolved(composed(*tiny(manifest, f"data.channel={wanted}")))
    data = build_data(config, make(config, "frontend"))
    for u in data.corpus.splits["train"]:
        assert pitch(data.pipeline.audio(u).numpy(), RATE) == pytest.approx(1000 if u.channel == 1 else hz, abs=1)


@pytest.mark.parametrize("channel", ["left", -1, "0"])
def test_a_channel_that_cannot_be(tones, channel):
    config = resolved(composed(*tiny(tones)))
    config["data"]["channel"] = channel
    with pytest.raises(ValueError, match=r"data.channel is a number from 0, or mix"):
        make(config, "data")


# Segments


def test_a_segment_is_cut_to_the_sample(stereo):
    samples, _ = audio.read(stereo, offset=0.5, duration=0.25, channel=0)
    np.testing.assert_allclose(samples, LEFT[RATE // 2 : RATE * 3 // 4], atol=1e-4)
    samples, _ = audio.read(stereo, offset=1.5)
    assert len(samples) == RATE // 2
    with pytest.raises(DataError, match=r"segment outside the file: .* lasts 2.000 s, the segment starts at 2.500"):
        audio.read(stereo, offset=2.5, duration=1.0)


@pytest.mark.parametrize(
    ("offset", "duration", "wrong"),
    [(0.0, 1.0, False), (1.0, 1.0, False), (1.0, 1.04, False), (1.0, 1.5, True), (3.0, 0.1, True), (None, 1.0, True)],
)
def test_a_segment_may_not_overrun_its_file(stereo, offset, duration, wrong):
    u = Utterance("u", stereo, duration, "a", offset=offset)
    problem = check.audio_problem(u, RATE, decode=False)
    assert (problem is not None) == wrong
    if problem:
        assert problem.kind == "duration that lies"


def test_segments_and_channels_of_one_file_have_names_of_their_own(tmp_path):
    parts = [{"offset": 0.5}, {"offset": 1.0}, {"offset": 1.0, "channel": 1}, {}]
    rows = [{"audio_filepath": "stereo.wav", "duration": 0.5, "text": "a", **part} for part in parts]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [u.id for u in parse_manifest(manifest)] == ["stereo-0.5", "stereo-1", "stereo-1-ch1", "stereo"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ('"offset": -1', "offset must be a number of seconds from 0, -1 came"),
        ('"offset": "1"', "offset must be a number of seconds from 0, '1' came"),
        ('"channel": 0.5', "channel must be a whole number from 0, 0.5 came"),
        ('"channel": true', "channel must be a whole number from 0, True came"),
        ('"member": 3', "member must be the name of a file in the tar, 3 came"),
    ],
)
def test_values_that_no_segment_can_have(tmp_path, value, says):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(f'{{"audio_filepath": "x.wav", "duration": 1, "text": "a", {value}}}\n')
    [problem] = parse_manifest(manifest)
    assert str(problem) == f"m.jsonl:1: unreadable line: {says}"


# Tars and rates


def test_a_member_of_a_tar_is_read_like_a_file(tmp_path, stereo):
    content = io.BytesIO()
    soundfile.write(content, RIGHT, RATE, format="FLAC")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        info = tarfile.TarInfo("x.flac")
        info.size = len(content.getvalue())
        tar.addfile(info, io.BytesIO(content.getvalue()))
    np.testing.assert_allclose(audio.read(tmp_path / "s.tar", "x.flac")[0], RIGHT, atol=1e-4)
    samples, _ = audio.read(tmp_path / "s.tar", "x.flac", offset=0.5, duration=0.5)
    np.testing.assert_allclose(samples, RIGHT[RATE // 2 : RATE], atol=1e-4)
    with pytest.raises(DataError, match=r"missing file: .*s.tar has no member y.flac"):
        audio.read(tmp_path / "s.tar", "y.flac")


@pytest.mark.parametrize("rate", [6000, 11025, 16000])
def test_resampling_keeps_pitch_and_level(tmp_path, rate):
    manifest = write_tones(tmp_path)
    t = np.arange(rate) / rate
    soundfile.write(tmp_path / "train0.wav", 0.3 * np.sin(2 * np.pi * 1000 * t), rate)
    rows = manifest.read_text().splitlines()
    rows[0] = '{"audio_filepath": "train0.wav", "duration": 1.0, "text": "a", "split": "train", "speaker": "train-0"}'
    manifest.write_text("\n".join(rows))
    config = resolved(composed(*tiny(manifest, "data.resample=true")))
    data = build_data(config, make(config, "frontend"))
    samples = data.pipeline.audio(data.corpus.splits["train"][0])
    assert len(samples) == pytest.approx(RATE, abs=2)
    assert pitch(samples.numpy(), RATE) == pytest.approx(1000, abs=2)
    assert torch.sqrt(samples[200:-200].square().mean()).item() == pytest.approx(0.3 / 2**0.5, rel=0.02)
