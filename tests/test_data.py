"""Manifests, checks, splits, batches; every kind of bad input is named by line, file or utterance."""

import json
import os

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.build import build, make
from asr_lab.build import build_data as _build_data
from asr_lab.data import audio, check
from asr_lab.data.corpus import carve
from asr_lab.data.manifest import Utterance, read_manifest
from asr_lab.data.speech import collate
from asr_lab.errors import ConfigError, DataError
from asr_lab.sweep.cell import resolved

from .conftest import RATE, composed, tiny, write_tones


@pytest.fixture
def corpus(tmp_path):
    """A writable copy of the tone corpus and a way to change its rows."""
    manifest = write_tones(tmp_path, (4, 2, 2))

    def change(index: int | None = None, **values):
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        for row in rows if index is None else rows[index : index + 1]:
            row.update(values)
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return manifest

    return change


def build_data(config):
    return _build_data(config, make(config, "frontend"))


def config_of(manifest, *overrides):
    return resolved(composed(*tiny(manifest, *overrides)))


# Reading


def test_reads_what_the_convention_says(corpus):
    manifest = corpus()
    utterances = read_manifest(manifest)
    assert len(utterances) == 8
    assert utterances[0].id == "train0"
    assert utterances[0].audio == manifest.parent / "train0.wav"
    assert utterances[0].sample_rate == RATE


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{not json", "not JSON"),
        ("[1]", "a JSON object is wanted, a list came"),
        ('{"audio_filepath": "x.wav", "text": "a"}', "key 'duration' is missing"),
        ('{"audio_filepath": "x.wav", "duration": -1, "text": "a"}', "positive number of seconds, -1 came"),
        ('{"audio_filepath": "x.wav", "duration": "2", "text": "a"}', "positive number of seconds, '2' came"),
        ('{"audio_filepath": "x.wav", "duration": NaN, "text": "a"}', "positive number of seconds, nan came"),
        ('{"audio_filepath": 3, "duration": 1, "text": "a"}', "must be a path, 3 came"),
        ('{"audio_filepath": "x.wav", "duration": 1, "text": null}', "text must be a string, None came"),
    ],
)
def test_unreadable_line_is_given_by_number(corpus, line, says):
    manifest = corpus()
    lines = manifest.read_text().splitlines()
    lines.insert(2, line)
    manifest.write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"manifest.jsonl:3: unreadable line: .*{says}"):
        read_manifest(manifest)


def test_manifests_that_cannot_be(tmp_path, corpus):
    with pytest.raises(DataError, match=r"nowhere.jsonl: cannot read the manifest"):
        read_manifest(tmp_path / "nowhere.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n")
    with pytest.raises(DataError, match="has no utterances"):
        read_manifest(empty)
    empty.write_bytes(b'{"audio_filepath": "\xff\xfe"}\n')
    with pytest.raises(DataError, match=r"empty.jsonl:1: unreadable line: not UTF-8"):
        read_manifest(empty)
    with pytest.raises(DataError, match="duplicated id 'same'"):
        read_manifest(corpus(id="same"))


# Files


def damaged(folder, kind):
    """A path to a file that is wrong in one way."""
    path = folder / f"{kind}.wav"
    samples = np.zeros(8000, dtype=np.float32)
    if kind == "missing":
        return path
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "headeronly":
        soundfile.write(path, samples[:0], RATE)
    elif kind == "text":
        path.write_text("this is not audio\n" * 50)
    elif kind == "cut":
        soundfile.write(path, samples, RATE)
        path.write_bytes(path.read_bytes()[:4000])
    elif kind == "cutflac":
        path = folder / "cut.flac"
        soundfile.write(path, np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1, RATE)
        path.write_bytes(path.read_bytes()[:6000])
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "missing file: "),
        ("empty", "empty file: .* 0 bytes"),
        ("headeronly", "empty file: .* no samples"),
        ("text", "not audio: "),
        ("cut", "truncated file: .* of .* bytes"),
        ("cutflac", "truncated file: "),
    ],
)
def test_damaged_files_are_named(tmp_path, kind, says):
    path = damaged(tmp_path, kind)
    with pytest.raises(DataError, match=says) as caught:
        audio.read(path)
    assert str(path) in str(caught.value)
    u = Utterance("u1", path, 1.0, "a")
    problem = check.audio_problem(u, RATE, decode=True)
    assert problem.where == "u1"
    assert problem.kind == says.partition(":")[0]


def test_channels_are_averaged(tmp_path):
    stereo = np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1)
    soundfile.write(tmp_path / "s.wav", stereo, RATE)
    samples, rate = audio.read(tmp_path / "s.wav")
    assert rate == RATE
    np.testing.assert_allclose(samples, 0.125, atol=1e-4)


def test_bad_corpora_stop_before_training(corpus):
    """Each with the utterance, what came, and what to do."""
    cases = [
        ({"index": 1, "text": "  "}, "train1: empty text"),
        ({"index": 1, "text": "a9"}, "train1: characters outside the tokenizer: '9'"),
        ({"index": 1, "duration": 9.0}, "train1: duration that lies: .* the manifest says 9.000"),
        ({"index": 1, "audio_filepath": "gone.wav", "id": "x"}, "x: missing file: .*gone.wav"),
        ({"index": None, "split": "train"}, 'split without utterances.*"split": "test"'),
    ]
    original = corpus().read_text()
    for change, says in cases:
        manifest = corpus(**change)
        with pytest.raises(DataError, match=says):
            build_data(config_of(manifest))
        manifest.write_text(original)


def test_several_problems_are_counted(corpus):
    with pytest.raises(DataError, match=r"and 7 more: `asr-lab data check .*manifest.jsonl` lists all"):
        build_data(config_of(corpus(text="9")))


def test_wrong_rate_is_refused_or_resampled(corpus):
    manifest = corpus()
    with pytest.raises(DataError, match=r"wrong sampling rate: .* has 8000 Hz, 16000 wanted.*data.resample=true"):
        build_data(config_of(manifest, "data.sample_rate=16000"))
    data = build_data(config_of(manifest, "data.sample_rate=16000", "data.resample=true"))
    u = data.corpus.splits["train"][0]
    n_frames = data.datasets["train"].features(0, 0).shape[0]
    assert abs(n_frames - u.duration * 100) <= 2


def test_too_few_encoder_frames_is_found_before_training(corpus):
    manifest = corpus(index=0, text="abcd" * 12)
    with pytest.raises(DataError, match=r"train0: too few frames: \d+ encoder frames for 48 needed"):
        build(config_of(manifest))
    repeats = corpus(index=0, text="a" * 20)  # 20 labels and 19 blanks between them
    with pytest.raises(DataError, match="for 39 needed"):
        build(config_of(repeats))


def test_a_file_damaged_after_the_check_is_named_when_read(corpus):
    manifest = corpus()
    data = build_data(config_of(manifest))
    (manifest.parent / "train0.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"not audio: .*train0.wav"):
        data.datasets["train"].features(0, 0)


def test_clean_corpus_is_looked_at_once(corpus, monkeypatch):
    manifest = corpus()
    build_data(config_of(manifest))
    monkeypatch.setattr(check, "audio_problems", lambda *a, **k: pytest.fail("looked twice"))
    build_data(config_of(manifest))


# Splits


def test_dev_set_is_carved_by_speaker(corpus):
    rows = [json.loads(line) for line in corpus().read_text().splitlines()]
    manifest = corpus()
    rows = [dict(row, split="test" if row["split"] == "test" else "train") for row in rows]
    manifest.write_text("".join(json.dumps(r) + "\n" for r in rows))
    splits = make(config_of(manifest, "data.carve_share=0.3"), "data").splits
    assert {u.speaker for u in splits["train"]}.isdisjoint(u.speaker for u in splits["val"])
    assert len(splits["train"]) + len(splits["val"]) == 6
    again = make(config_of(manifest, "data.carve_share=0.3"), "data").splits
    assert [u.id for u in again["val"]] == [u.id for u in splits["val"]]


def test_manifest_without_splits_gets_all_three(corpus):
    splits = make(config_of(corpus(split=None)), "data").splits
    assert all(splits[s] for s in ("train", "val", "test"))
    assert sum(map(len, splits.values())) == 8


def test_splits_carved_anew_are_those_of_a_manifest_without(corpus):
    named = make(config_of(corpus(), "data.carve_anew=true"), "data").splits
    unnamed = make(config_of(corpus(split=None)), "data").splits
    assert {s: [u.id for u in us] for s, us in named.items()} == {s: [u.id for u in us] for s, us in unnamed.items()}
    speakers = [{u.speaker for u in us} for us in named.values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers))


def test_names_of_the_development_split_are_one(corpus):
    manifest = corpus()
    manifest.write_text(manifest.read_text().replace('"split": "val"', '"split": "dev"'))
    assert len(make(config_of(manifest), "data").splits["val"]) == 2


@given(st.integers(2, 40), st.floats(0.05, 0.45), st.integers(0, 5), st.booleans())
@settings(max_examples=40, deadline=None)
def test_carving_loses_nothing_and_never_takes_all(n, share, seed, known):
    us = [Utterance(f"u{i}", None, 1.0, "a", f"s{i % 5}" if known else None) for i in range(n)]
    rest, taken = carve(us, "speaker", share, seed)
    assert sorted(u.id for u in rest + taken) == sorted(u.id for u in us)
    assert rest
    assert len(taken) >= min(share * n, 1)
    if known and n >= 5:
        assert {u.speaker for u in rest}.isdisjoint(u.speaker for u in taken)


@pytest.mark.parametrize(("key", "value"), [("carve_by", "gender"), ("carve_share", 0.7)])
def test_carving_values_that_cannot_be(corpus, key, value):
    with pytest.raises(ConfigError, match=f"data.{key}"):
        make(config_of(corpus(), f"data.{key}={value}"), "data")


# Batches


def test_collate_pads_with_zeros_and_keeps_lengths():
    us = [Utterance("a", None, 0.5, "x"), Utterance("b", None, 0.25, "yz")]
    batch = collate([torch.ones(5, 3), torch.ones(2, 3)], [torch.tensor([1]), torch.tensor([2, 3])], us)
    assert batch.feats.shape == (2, 5, 3)
    assert batch.feats[1, 2:].abs().sum() == 0
    assert batch.feat_lens.tolist() == [5, 2]
    assert batch.labels.tolist() == [[1, 0], [2, 3]]
    assert batch.label_lens.tolist() == [1, 2]
    assert batch.seconds == 0.75


# Augmentation and workers


def test_validation_is_not_augmented(tones):
    data = build_data(config_of(tones, "augment=specaugment_speed"))
    plain = build_data(config_of(tones))
    for a, b in zip(data.loader("val"), plain.loader("val"), strict=True):
        assert torch.equal(a.feats, b.feats)


@pytest.mark.skipif(not os.environ.get("ASR_LAB_DATA"), reason="ASR_LAB_DATA is not set: no corpora here")
def test_an4_has_its_official_test_set_and_a_dev_set_of_its_own_speakers():
    splits = make(resolved(composed("data=an4")), "data").splits
    assert len(splits["test"]) == 130
    assert sum(len(u.text.split()) for u in splits["test"]) == 773
    assert len(splits["train"]) + len(splits["val"]) == 948
    speakers = {s: {u.speaker for u in us} for s, us in splits.items()}
    assert not speakers["train"] & speakers["val"]
    assert not speakers["test"] & (speakers["val"] | speakers["train"])
    assert 0.1 <= len(splits["val"]) / 948 <= 0.13
