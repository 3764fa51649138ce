"""`asr-lab data stats`: a corpus with planted faults gives them back, and speech without faults few others."""

import base64
import io
import json
import math
import os
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from asr_lab.data import measure, transcripts
from asr_lab.data.examples import same_audio
from asr_lab.data.manifest import Utterance, read_manifest
from asr_lab.data.measure import FLOOR_DB, Heard, clipped_runs, look_at_all
from asr_lab.data.speech_rate import FEWEST, LIMIT, suspicion
from asr_lab.data.stats import N_BARS, analyse, draw, histogram, spread
from asr_lab.report.clips import CLIP_S

from .conftest import only_line

RATE = 8000
CHARACTER_S, PAUSE_S = 0.07, 0.12
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "zero"]
NOISE = 10 ** (-60 / 20)


def speech(text: str, rng: np.random.Generator, pace: float = 1.0) -> np.ndarray:
    """Bursts of noise, 70 ms a character, pauses of 120 ms between words and of 150 ms at both ends."""
    pieces = [np.zeros(round(0.15 * RATE))]
    for word in text.split():
        n = round(CHARACTER_S * len(word) * RATE * pace)
        pieces += [0.1 * rng.standard_normal(n).clip(-3, 3), np.zeros(round(PAUSE_S * RATE))]
    pieces[-1] = pieces[0]
    samples = np.concatenate(pieces)
    return samples + NOISE * rng.standard_normal(len(samples))


def row(name: str, samples: np.ndarray, text: str, split: str, speaker: str, rate: int = RATE) -> dict:
    return {
        "audio_filepath": f"{name}.wav",
        "id": name,
        "duration": round(len(samples) / rate, 4),
        "text": text,
        "split": split,
        "speaker": speaker,
        "sample_rate": rate,
    }


def write(folder: Path, rows: list[dict]) -> Path:
    (folder / "manifest.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """Manifest of 40 train and 12 test recordings without faults, and one recording for each fault."""
    folder = tmp_path_factory.mktemp("planted")
    rng, draw_words = np.random.default_rng(1), random.Random(1)
    rows = []

    def add(name: str, text: str, split: str, samples: np.ndarray, speaker: str = "", said: str = "") -> None:
        soundfile.write(folder / f"{name}.wav", samples, RATE)
        rows.append(row(name, samples, said or text, split, speaker or f"{split}-{len(rows) % 4}"))

    for split, n in (("train", 40), ("test", 12)):
        for i in range(n):
            # No two alike: the number of words and the words themselves differ, or the suffix does.
            text = " ".join(draw_words.choices(WORDS, k=1 + i % 6)) + f" {split}" + "ab"[i % 2] * (i // 2 + 1)
            add(f"{split}{i}", text, split, speech(text, rng, draw_words.uniform(0.9, 1.1)))
    loud = speech("one two three", rng)
    add("clipped", "one two three", "train", (12 * loud).clip(-1, 1))
    add("flat", "three two one", "train", 0.5 * (12 * loud).clip(-1, 1))
    add("silent", "five six", "train", np.zeros(RATE))
    add("offset", "nine nine", "train", speech("nine nine", rng) + 0.05)
    add("wrong", "one", "train", speech("one", rng), said="seven three zero nine eight seven three nine")
    add(
        "short",
        "six seven eight nine zero one six",
        "train",
        speech("six seven eight nine zero one six", rng),
        said="a",
    )
    same, _ = soundfile.read(folder / "train3.wav")
    add("copy", rows[3]["text"], "test", same, speaker="train-0")
    add("new", "zebra yak zebra one", "test", speech("zebra yak zebra one", rng))
    return write(folder, rows)


@pytest.fixture(scope="module")
def answer(planted) -> dict:
    splits: dict[str, list[Utterance]] = {}
    for u in read_manifest(planted):
        splits.setdefault(u.split or "", []).append(u)
    return analyse(splits, spaced=True)


def one(samples: np.ndarray, rate: int = RATE) -> measure.Signal:
    return measure.measure(samples.astype(np.float32), rate)


# One signal


def test_a_tone_in_noise_has_the_planted_measures():
    """0.3 s of noise, 1 s of a sine of amplitude 0.5, 0.2 s of noise; the noise is 40 dB below the sine."""
    rng = np.random.default_rng(0)
    x = 0.5 / math.sqrt(2) * 0.01 * rng.standard_normal(round(1.5 * RATE))
    x[round(0.3 * RATE) : round(1.3 * RATE)] += 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    s = one(x + 0.001)
    assert s.seconds == 1.5
    assert s.peak_db == pytest.approx(20 * math.log10(0.5), abs=0.3)
    assert s.rms_db == pytest.approx(20 * math.log10(0.5) - 3.01 + 10 * math.log10(1 / 1.5), abs=0.05)
    assert s.dc == pytest.approx(0.001, abs=2e-4)
    assert s.leading_s == pytest.approx(0.3, abs=0.02)
    assert s.trailing_s == pytest.approx(0.2, abs=0.02)
    assert s.silent == pytest.approx(0.5 / 1.5, abs=0.02)
    assert s.active_s == pytest.approx(1.0, abs=0.03)
    assert s.snr_db == pytest.approx(40, abs=0.5)
    assert (s.clipped, s.clipped_runs) == (0, 0)


@pytest.mark.parametrize("snr_db", [15, 25, 35])
def test_snr_is_the_planted_one(snr_db):
    rng = np.random.default_rng(2)
    noise = 0.05 * 10 ** (-snr_db / 20) * rng.standard_normal(2 * RATE)
    noise[RATE // 2 : -RATE // 2] += 0.05 * rng.standard_normal(RATE)
    assert one(noise).snr_db == pytest.approx(snr_db, abs=1)


@pytest.mark.parametrize("n", [1, 2, 79, 80, 8000])
def test_digital_silence_has_no_sound(n):
    s = one(np.zeros(n))
    assert (s.peak_db, s.rms_db, s.active_s, s.silent) == (FLOOR_DB, FLOOR_DB, 0, 1)
    assert s.leading_s == s.trailing_s == pytest.approx(n / RATE)
    assert s.snr_db is None and not s.clipped


def test_sound_without_a_pause_has_no_snr():
    s = one(0.2 * np.random.default_rng(0).standard_normal(RATE).clip(-3, 3))
    assert s.snr_db is None and s.active_s == pytest.approx(1) and s.leading_s == 0


def test_soft_syllables_are_no_silence():
    """Level changes of 10 dB, without a pause."""
    x = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    x *= np.where(np.arange(RATE) // 800 % 2, 1, 10 ** (-10 / 20))
    assert one(x).silent == 0


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ([0, 1, 1, 1, 0], (3, 1)),
        ([0, 1, 1, 0, 1, 0], (0, 0)),  # two in a row, and a peak that was normalised to full scale
        ([-1, -1, -1, -1, 0.5, 1, 1, 1], (7, 2)),
        ([0.2, 0.5, 0.5, 0.5, 0.5, 0.1], (4, 1)),  # clipped, then made quieter
        ([0.0, 0.05, 0.05, 0.05, 0.0], (0, 0)),  # too quiet to be clipping
        ([0, 0, 0, 0], (0, 0)),
    ],
)
def test_clipped_runs_are_counted(samples, says):
    assert clipped_runs(np.array(samples, dtype=np.float32)) == says


@pytest.mark.parametrize("frequency", [110, 440, 1730])
def test_a_clean_sine_of_16_bits_is_not_clipped(frequency):
    x = np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE)
    assert clipped_runs((np.round(0.9 * 32767 * x) / 32768).astype(np.float32)) == (0, 0)


@given(st.integers(1, 3000), st.floats(0.001, 1), st.integers(0, 5))
def test_any_signal_can_be_measured(n, level, seed):
    s = one(level * np.random.default_rng(seed).uniform(-1, 1, n))
    assert s.rms_db <= s.peak_db + 1e-3 <= 1e-2
    assert 0 <= s.silent <= 1 and 0 <= s.leading_s <= s.seconds + 1e-9
    assert s.active_s == pytest.approx((1 - s.silent) * s.seconds)


# Transcripts


def test_unseen_is_counted_by_hand():
    def us(split: str, *texts: str) -> list[Utterance]:
        return [Utterance(f"{split}{i}", Path("x"), 1.0, t, speaker=f"s{i}") for i, t in enumerate(texts)]

    new = transcripts.unseen(us("train", "a cat", "the dog"), us("test", "a zebra", "zebra yak the", "a cat"), True)
    assert new["word_types"] == 2 and new["word_tokens"] == 3
    assert new["word_type_share"] == pytest.approx(2 / 5) and new["word_token_share"] == pytest.approx(3 / 7)
    assert new["most_frequent"] == [("zebra", 2), ("yak", 1)]
    assert [(c["character"], c["count"]) for c in new["characters"]] == [
        ("b", 2),
        ("r", 2),
        ("z", 2),
        ("k", 1),
        ("y", 1),
    ]
    assert new["repeated_transcripts"] == 1
    assert new["shared_speakers"] == ["s0", "s1"]


def test_characters_are_the_units_of_a_script_without_spaces():
    assert transcripts.units("你好 吗", spaced=False) == ["你", "好", "吗"]
    assert transcripts.units(" two  words ", spaced=True) == ["two", "words"]
    [nbsp] = transcripts.listed(Counter({"\u00a0": 3}))
    assert nbsp == {"character": "\u00a0", "code": "U+00A0", "name": "no-break space", "count": 3}


# Numbers


def test_spread_and_histogram_have_every_value():
    assert spread([]) is None and histogram([None]) is None
    numbers = spread([None, *range(101)])
    assert numbers and [numbers[k] for k in ("min", "q1", "median", "p95", "max", "mean")] == [0, 25, 50, 95, 100, 50]
    whole = histogram([1, 1, 2, 5])
    assert whole == {"edges": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5], "counts": [2, 1, 0, 0, 1], "min": 1, "max": 5}
    assert histogram([2.5, 2.5]) == {"edges": [2.0, 3.0], "counts": [2], "min": 2.5, "max": 2.5}
    far = histogram([-50.0, *np.linspace(0, 1, 998), 50.0])  # two outliers: counted, but not drawn to scale
    assert far and (far["edges"][0], far["edges"][-1], far["min"], far["max"]) == (0, 1, -50, 50)
    assert sum(far["counts"]) == 1000


@given(st.lists(st.floats(-1e3, 1e3) | st.integers(-1000, 1000), min_size=1, max_size=50))
def test_no_bar_loses_a_value(values):
    bars = histogram(values)
    assert bars and sum(bars["counts"]) == len(values) and 1 <= len(bars["counts"]) <= N_BARS
    assert len(bars["edges"]) == len(bars["counts"]) + 1 and bars["edges"] == sorted(set(bars["edges"]))


def test_the_same_samples_are_found_and_silence_is_no_duplicate():
    def heard(name: str, samples: np.ndarray) -> Heard:
        return Heard(Utterance(name, Path("x"), 1.0, name), one(samples))

    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE)
    recordings = [("a", noise), ("b", noise.copy()), ("c", noise * 0.99), ("d", 0 * noise), ("e", 0 * noise)]
    groups = same_audio([heard(*r) for r in recordings], dict.fromkeys("abcde", "train"))
    assert groups == [{"ids": ["a", "b"], "splits": ["train"], "texts": ["a", "b"]}]


def test_a_draw_is_the_same_for_the_same_seed():
    us = [Utterance(str(i), Path("x"), 1.0, "") for i in range(100)]
    assert draw(us, None, 0) == draw(us, 100, 0) == us
    first = draw(us, 10, 0)
    assert len(first) == 10 and first == draw(us, 10, 0) != draw(us, 10, 1)
    assert first == sorted(first, key=us.index)


# Sound against transcript


def test_the_rule_finds_the_fit_and_the_planted_outlier():
    rng = np.random.default_rng(3)
    characters, words = rng.integers(5, 60, 300), rng.integers(1, 12, 300)
    people = [f"s{i % 6}" for i in range(300)]
    own = np.array([0.8, 0.9, 1.0, 1.0, 1.1, 1.25])[np.arange(300) % 6]
    seconds = (0.2 + 0.06 * characters + 0.1 * words) * own * np.exp(0.08 * rng.standard_normal(300))
    seconds[17] *= 2.5
    seconds[42] /= 2.5
    fit = suspicion(seconds.tolist(), characters.tolist(), words.tolist(), people)
    assert fit is not None
    pace, z = fit
    assert pace.character_s == pytest.approx(0.06, rel=0.1) and pace.word_s == pytest.approx(0.1, rel=0.2)
    assert pace.spread == pytest.approx(0.08, rel=0.15)  # the speakers' own paces are taken off
    assert set(np.flatnonzero(np.abs(z) >= LIMIT)) == {17, 42}
    assert z[17] > 0 > z[42]


def test_wrong_transcripts_do_not_bend_the_fit():
    rng = np.random.default_rng(4)
    characters, words = rng.integers(5, 60, 400), rng.integers(1, 12, 400)
    seconds = (0.2 + 0.06 * characters + 0.1 * words) * np.exp(0.08 * rng.standard_normal(400))
    wrong = np.flatnonzero(characters < 30)[:40]  # a tenth of all, none of them long
    seconds[wrong] *= 6
    fit = suspicion(seconds.tolist(), characters.tolist(), words.tolist(), [None] * 400)
    assert fit is not None and fit[0].character_s == pytest.approx(0.06, rel=0.1)
    assert set(np.flatnonzero(np.abs(fit[1]) >= LIMIT)) == set(wrong)


def test_few_or_equal_recordings_make_no_outliers():
    n = FEWEST - 1
    assert suspicion([1.0] * n, [5] * n, [1] * n, [None] * n) is None
    fit = suspicion([1.0] * 20 + [1.02], [5] * 21, [1] * 21, [None] * 21)
    assert fit is not None and np.abs(fit[1]).max() < 1


DATA = os.environ.get("ASR_LAB_DATA")


@pytest.mark.skipif(not DATA or not Path(DATA, "an4").is_dir(), reason="ASR_LAB_DATA has no an4")
def test_speech_gives_few_false_alarms_and_shows_exchanged_transcripts():
    """AN4's transcripts are taken to be right: at most 4 in 1,000 are suspected; of exchanged ones, at least a quarter
    (an exchange between transcripts of equal length cannot be seen)."""
    us = read_manifest(Path(DATA or "", "an4", "manifest.jsonl"))[::2]
    seconds = [look.signal.active_s for look in look_at_all(us, None, "mix", 1) if look.signal]

    def scores(texts: list[str]) -> np.ndarray:
        counts = [transcripts.n_characters(t) for t in texts], [len(t.split()) for t in texts]
        fit = suspicion(seconds, *counts, [u.speaker for u in us])
        assert fit is not None
        return np.abs(fit[1])

    texts = [u.text.lower() for u in us]
    assert (scores(texts) >= LIMIT).mean() <= 0.004
    found = []
    for seed in range(10):
        exchanged = random.Random(seed).sample(range(len(us)), 10)
        wrong = list(texts)
        for i, j in zip(exchanged, exchanged[1:] + exchanged[:1], strict=True):
            wrong[i] = texts[j]
        found += [z >= LIMIT for z, i in zip(scores(wrong)[exchanged], exchanged, strict=True) if wrong[i] != texts[i]]
    assert np.mean(found) >= 1 / 4


# A corpus with planted faults


def test_every_planted_fault_is_found(answer):
    assert answer["utterances"] == 60 and answer["audio"] == {"wanted": 60, "measured": 60, "seed": 0}
    assert list(answer["splits"]) == ["train", "test", "all"]
    assert [s["utterances"] for s in answer["splits"].values()] == [46, 14, 60]
    everything = answer["splits"]["all"]["audio"]
    assert everything["flagged"] == {"soundless": 1, "clipped": 2, "noisy": 0, "dc": 1}
    assert {k: set(v) for k, v in answer["flagged"].items()} == {
        "soundless": {"silent"},
        "clipped": {"clipped", "flat"},
        "noisy": set(),
        "dc": {"offset"},
    }
    assert everything["sample_rates"] == {RATE: 60} and everything["channels"] == {1: 60}
    assert {s["id"]: s["z"] > 0 for s in answer["suspects"]} == {"wrong": False, "short": True}
    assert [(g["ids"], g["splits"]) for g in answer["same_audio"]] == [(["train3", "copy"], ["test", "train"])]
    new = answer["unseen"]["test"]
    assert {"zebra": 2, "yak": 1}.items() <= dict(new["most_frequent"]).items()
    assert new["repeated_transcripts"] == 1 and new["shared_speakers"] == ["train-0"]
    text = " ".join(answer["findings"])
    for said in ("no sound", "clipped", "DC offset", "in more than one split", "sound for the transcript"):
        assert said in text


def test_what_is_worth_hearing_has_the_planted_ones(answer):
    why = {name: e["id"] for e in answer["examples"] for name in e["why"]}
    assert why["without any sound"] == "silent"
    assert why["loudest"] in ("clipped", "flat") and why["most clipped"] in ("clipped", "flat")
    assert why["most sound for its transcript"] and {"wrong", "short"} <= {e["id"] for e in answer["examples"]}
    assert sum("random" in e["why"] for e in answer["examples"]) == 3


def test_a_corpus_without_faults_has_no_findings_about_sound(tones):
    found = analyse({"train": read_manifest(tones)}, spaced=True)
    assert not found["suspects"] and not found["same_audio"] and not found["problems"]["items"]
    assert list(found["splits"]) == ["all"] and found["unseen"] == {}
    assert found["findings"] == []
    called_all = analyse({"all": read_manifest(tones)}, spaced=True, audio=False)
    assert called_all["splits"]["all"]["utterances"] == 36


def test_processes_give_the_same_numbers(tones, monkeypatch):
    monkeypatch.setattr(measure, "_FEW", 0)
    us = read_manifest(tones)
    assert list(look_at_all(us, RATE, "mix", 2)) == list(look_at_all(us, RATE, "mix", 1))


# The command


def stats(asr_lab, *args: str, cwd: Path, **env: str) -> dict:
    done = asr_lab("data", "stats", *args, "--json", "--workers", "1", cwd=cwd, **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_command_prints_a_table_of_80_columns(asr_lab, planted):
    done = asr_lab("data", "stats", "manifest.jsonl", cwd=planted.parent, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    table = lines[1 : next(i for i, line in enumerate(lines) if line.startswith("- "))]
    assert max(map(len, table)) <= 80
    assert any(re.match(r" *words not in train +– +\d+ +– *$", line) for line in table)
    assert "60 utterances" in lines[0] and lines[0].endswith("8 speakers")
    assert re.search(r"-\d+\.\d  wrong: 0\.\d+ s for 'seven three zero", done.stdout)


def test_many_splits_still_fit(asr_lab, tones, tmp_path):
    rows = [json.loads(line) for line in tones.read_text().splitlines()]
    for i, r in enumerate(rows):
        r |= {"audio_filepath": str(tones.parent / r["audio_filepath"]), "split": f"test-part-{i % 7}"}
    write(tmp_path, rows)
    done = asr_lab("data", "stats", ".", "--no-audio", cwd=tmp_path, COLUMNS="80")
    assert all(f"test-part-{i}" in done.stdout for i in range(7))
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_broken_files_are_counted_and_stop_nothing(asr_lab, tones, tmp_path):
    rows = [json.loads(line) for line in tones.read_text().splitlines()]
    for r in rows:
        r["audio_filepath"] = str(tones.parent / r["audio_filepath"])
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no audio at all, but long enough")
    (tmp_path / "cut.wav").write_bytes((tones.parent / "train0.wav").read_bytes()[:2000])
    soundfile.write(tmp_path / "nan.wav", np.full(800, np.nan), RATE, subtype="FLOAT")
    for name in ("empty", "text", "cut", "nan", "gone"):
        rows.append(row(name, np.zeros(800), "a", "train", "x"))
    rows[0]["duration"] += 5
    manifest = write(tmp_path, rows)
    manifest.write_text(manifest.read_text() + "not JSON\n")
    found = stats(asr_lab, "manifest.jsonl", cwd=tmp_path)
    assert found["problems"]["counts"] == {
        "unreadable line": 1,
        "duration that lies": 1,
        "empty file": 1,
        "not audio": 1,
        "truncated file": 1,
        "samples that are no numbers": 1,
        "missing file": 1,
    }
    assert found["audio"] == {"wanted": 41, "measured": 36, "seed": 0} and found["problems"]["recordings"] == 5
    shown = asr_lab("data", "stats", "manifest.jsonl", cwd=tmp_path).stdout
    assert "gone: " in shown and "manifest.jsonl:42" in shown


def test_nothing_but_broken_files_is_an_error(asr_lab, tmp_path):
    write(tmp_path, [row(f"gone{i}", np.zeros(800), "a b", "train", "x") for i in range(3)])
    done = asr_lab("data", "stats", "manifest.jsonl", "--page", "page.html", cwd=tmp_path)
    assert done.returncode == 2 and "missing file (3)" in done.stdout
    assert "missing file" in (tmp_path / "page.html").read_text()
    found = stats(asr_lab, "manifest.jsonl", "--no-audio", cwd=tmp_path)  # opens no recording
    assert found["audio"] is None and found["splits"]["all"]["audio"] is None and found["utterances"] == 3


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["an5"], "neither a manifest nor a corpus; did you mean 'an4'?"),
        (["nowhere/manifest.jsonl"], "nowhere/manifest.jsonl: neither a manifest nor a corpus"),
        (["empty.jsonl"], "no readable utterance"),
        (["bad.jsonl"], "bad.jsonl:1"),
        (["good.jsonl", "--page", "."], "--page: . is a folder"),
        (
            ["good.jsonl", "--no-audio", "--page", "bad.jsonl/page.html"],
            "--page: bad.jsonl/page.html cannot be",
        ),
    ],
)
@pytest.mark.quick(2)
def test_what_cannot_be_looked_at_is_one_line(asr_lab, tmp_path, args, says):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bad.jsonl").write_text("[]\n")
    (tmp_path / "good.jsonl").write_text('{"audio_filepath": "x.wav", "duration": 1, "text": "a"}\n')
    assert says in only_line(asr_lab("data", "stats", *args, cwd=tmp_path))


def test_a_corpus_that_is_not_there_says_how_to_get_it(asr_lab, tmp_path):
    line = only_line(asr_lab("data", "stats", "an4", cwd=tmp_path, ASR_LAB_DATA=str(tmp_path)))
    assert "`asr-lab data prepare an4` makes it" in line


def test_a_named_corpus_has_the_splits_of_training(asr_lab, tones, tmp_path):
    """`yesno` without a development split: one is carved, and the recordings' rate is held against the choice's."""
    rows = [json.loads(line) for line in tones.read_text().splitlines()]
    for r in rows:
        r |= {"audio_filepath": str(tones.parent / r["audio_filepath"]), "text": r["text"].upper()}
    (tmp_path / "yesno").mkdir()
    write(tmp_path / "yesno", [r for r in rows if r["split"] != "val"])
    found = stats(asr_lab, "yesno", cwd=tmp_path, ASR_LAB_DATA=str(tmp_path))
    assert {k: s["utterances"] for k, s in found["splits"].items()} == {"train": 21, "val": 3, "test": 6, "all": 30}
    assert not found["problems"]["items"]
    assert {c["character"] for c in found["characters"]} == set("abcd ")  # normalised


@pytest.mark.slow
def test_a_sample_is_seeded_and_said(asr_lab, tones):
    cwd = tones.parent
    some = stats(asr_lab, "manifest.jsonl", "--max-utterances", "10", cwd=cwd)
    assert some["audio"] == {"wanted": 10, "measured": 10, "seed": 0}
    assert some == stats(asr_lab, "manifest.jsonl", "--max-utterances", "10", cwd=cwd)
    assert (
        some["examples"]
        != stats(asr_lab, "manifest.jsonl", "--max-utterances", "10", "--seed", "1", cwd=cwd)["examples"]
    )
    everything = stats(asr_lab, "manifest.jsonl", cwd=cwd)
    assert some["words"] == everything["words"] and some["unseen"] == everything["unseen"]
    shown = asr_lab("data", "stats", "manifest.jsonl", "--max-utterances", "10", cwd=cwd).stdout
    assert "10 recordings drawn at random and measured (seed 0)" in shown


# The page


def test_the_page_is_complete_by_itself(asr_lab, planted, tmp_path):
    done = asr_lab("data", "stats", str(planted), "--page", "sub/page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "sub" / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|<script|@import|https?://""", page)
    assert page.count("<svg") >= 7 and page.count("<svg") == page.count('role="img" aria-label="')
    clips = re.findall(r'<audio [^>]*src="data:audio/flac;base64,([^"]+)" aria-label="[^"]+', page)
    assert len(clips) == page.count("<article") >= 8
    silent = [x for x in map(decoded, clips) if len(x) == RATE and not x.any()]
    assert len(silent) == 1  # the planted one, sample by sample
    for said in ("wrong", "zebra", "without any sound", "What stands out"):
        assert said in page


def decoded(clip: str) -> np.ndarray:
    return soundfile.read(io.BytesIO(base64.b64decode(clip)))[0]


def test_a_page_of_long_loud_recordings_stays_small(asr_lab, tmp_path):
    """Noise at 48 kHz hardly shrinks as FLAC: the clips are cut until they fit, and say so."""
    rng, rows = np.random.default_rng(5), []
    for i in range(14):
        x = rng.uniform(-0.9, 0.9, 48_000 * 12 + 480 * i)
        soundfile.write(tmp_path / f"{i}.wav", x, 48_000)
        rows.append(row(str(i), x, f"number {i}", "train", f"s{i}", rate=48_000))
    write(tmp_path, rows)
    done = asr_lab("data", "stats", "manifest.jsonl", "--page", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text()
    assert len(page) < 5e6
    clips = re.findall(r"base64,([^\"]+)", page)
    assert all(0.5 < len(decoded(c)) / 48_000 <= CLIP_S for c in clips)
    assert len(re.findall(r"The first \d", page)) == len(clips)


def test_transcripts_cannot_break_out_of_the_page(asr_lab, tones, tmp_path):
    rows = [json.loads(line) for line in tones.read_text().splitlines()]
    for r in rows:
        r["audio_filepath"] = str(tones.parent / r["audio_filepath"])
    nasty = '"><script>alert(1)</script>\u202e\ud800[bold]'
    rows[0] |= {"text": nasty, "speaker": nasty, "id": nasty}
    rows[1] |= {"audio_filepath": nasty + "2"}
    write(tmp_path, rows)
    assert stats(asr_lab, "manifest.jsonl", cwd=tmp_path)["problems"]["counts"] == {"missing file": 1}
    done = asr_lab("data", "stats", "manifest.jsonl", "--page", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
