"""The embedded corpus: its grammar, its speech, and that it is made once, whole and the same everywhere."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from asr_lab.data import espeak, spoken_numbers
from asr_lab.data.channel import Channel, transmit
from asr_lab.data.manifest import read_manifest
from asr_lab.data.number_grammar import MAX_WORDS, VOCABULARY, phrases, spell, spell_ordinal
from asr_lab.errors import DataError

SMALL = {"n_train": 20, "n_val": 5, "n_test": 6, "n_speakers": 8, "seed": 3, "sample_rate": 16_000}

needs_espeak = pytest.mark.skipif(
    find_spec("espeakng_loader") is None, reason="eSpeak NG is an optional extra: pip install 'asr-lab[synth]'"
)


def make(folder: Path, n_workers: int = 2, **changes: int) -> Path:
    return spoken_numbers.prepare(folder, **{**SMALL, **changes}, n_workers=n_workers, progress=False)


def make_elsewhere(folder: Path, before: str = "", **changes: int) -> subprocess.Popen:
    """The same in another process, after the statements `before`."""
    code = (
        f"from pathlib import Path\nfrom asr_lab.data import spoken_numbers as s\n{before}\n"
        f"print(s.prepare(Path({str(folder)!r}), **{ ({**SMALL, **changes})!r}, n_workers=2, progress=False))"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def corpus_json(manifest: Path) -> dict:
    return json.loads((manifest.parent / "corpus.json").read_text())


def digests(manifest: Path, split: str) -> list[str]:
    return [row["digest"] for row in map(json.loads, manifest.open()) if row["split"] == split]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("spoken_numbers"))


# ---- the grammar


def test_phrases_are_the_same_on_every_python():
    assert phrases(8, 0) == [
        "july second",
        "nine three eight two",
        "the ninety seventh",
        "september the twenty third",
        "the ninety fourth",
        "june the sixteenth twenty eleven",
        "eighty second",
        "forty five cents",
    ]


@pytest.mark.parametrize("seed", [1, "1/train"])
def test_phrases_are_short_and_made_of_the_vocabulary(seed):
    found = phrases(12_000, seed)
    assert all(re.fullmatch(r"[a-z]+('[a-z]+)?( [a-z]+('[a-z]+)?)*", phrase) for phrase in found)
    lengths = [len(phrase.split()) for phrase in found]
    assert max(lengths) == MAX_WORDS
    assert np.mean(np.array(lengths) <= 5) > 0.8
    heard = Counter(word for phrase in found for word in phrase.split())
    assert set(heard) == set(VOCABULARY)
    assert min(heard.values()) > 20, "a word too rare to be learnt"


def test_more_phrases_begin_with_the_same_phrases():
    assert phrases(50, 7) == phrases(200, 7)[:50]
    assert phrases(50, 7) != phrases(50, 8)


@pytest.mark.parametrize(
    ("number", "with_and", "words"),
    [
        (0, False, "zero"),
        (21, False, "twenty one"),
        (100, True, "one hundred"),
        (205, True, "two hundred and five"),
        (205, False, "two hundred five"),
        (3000, True, "three thousand"),
        (3007, True, "three thousand and seven"),
        (3107, True, "three thousand one hundred and seven"),
        (999_999, False, "nine hundred ninety nine thousand nine hundred ninety nine"),
    ],
)
def test_cardinals(number, with_and, words):
    assert " ".join(spell(number, with_and=with_and)) == words


def test_ordinals():
    assert [" ".join(spell_ordinal(n)) for n in (1, 12, 20, 30, 31, 99)] == [
        *("first", "twelfth", "twentieth", "thirtieth", "thirty first", "ninety ninth")
    ]


# ---- the plan


@pytest.mark.parametrize("n_speakers", [3, 8, spoken_numbers.MAX_SPEAKERS])
def test_no_voice_is_in_two_splits(n_speakers):
    dealt = spoken_numbers.speakers(n_speakers, seed=1)
    variants = [voice.name.split("+")[1] for split in spoken_numbers.SPLITS for voice in dealt[split]]
    assert len(variants) == len(set(variants)) == n_speakers
    assert all(dealt.values())


@pytest.mark.parametrize(("key", "value"), [("n_speakers", 2), ("n_val", 0), ("sample_rate", 4000)])
def test_a_wrong_parameter_is_named(tmp_path, key, value):
    with pytest.raises(DataError, match=rf"{key} must lie in .*, {value} came"):
        make(tmp_path, **{key: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 22_050, 44_100])
def test_the_channel_keeps_pitch_and_sets_level_and_noise(sample_rate):
    seconds = np.arange(espeak.SAMPLE_RATE) / espeak.SAMPLE_RATE
    tone = (8_000 * np.sin(2 * np.pi * 1_000 * seconds)).astype(np.int16)
    channel = Channel(level_db=-26, snr_db=30, lead_s=0.25, tail_s=0.25, noise_seed=1)
    pcm = transmit(tone, sample_rate, channel, 0.0)
    assert pcm.dtype == np.int16
    assert len(pcm) / sample_rate == pytest.approx(1.5, abs=0.03)
    middle, lead = pcm[sample_rate // 2 : sample_rate] / 32768, pcm[: sample_rate // 5] / 32768
    assert np.argmax(np.abs(np.fft.rfft(middle))) * sample_rate / len(middle) == pytest.approx(1_000, abs=3)
    assert 20 * np.log10(middle.std()) == pytest.approx(-26, abs=0.3)
    assert 20 * np.log10(lead.std()) == pytest.approx(-56, abs=0.5)


def test_importing_is_light():
    code = (
        "import sys, asr_lab.data.spoken_numbers; print({'torch', 'numpy', 'rich', 'espeakng_loader'} & {*sys.modules})"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


# ---- the corpus


@needs_espeak
def test_the_manifest_describes_the_files(corpus):
    import soundfile

    utterances = read_manifest(corpus)
    assert Counter(u.split for u in utterances) == {"train": 20, "val": 5, "test": 6}
    assert {u.audio for u in utterances} == set((corpus.parent / "audio").iterdir())
    for u in utterances:
        pcm, rate = soundfile.read(u.audio, dtype="int16")
        assert rate == u.sample_rate == 16_000
        assert round(len(pcm) / rate, 4) == u.duration
        assert 0.4 < u.duration < 5
        level = 20 * np.log10(np.sqrt(np.mean((pcm / 32768) ** 2)))
        assert -40 < level < -18, "speech, neither silent nor roaring"
        assert np.abs(pcm.astype(int)).max() < 32_000, "clipped"
    summary = corpus_json(corpus)
    assert summary["n_utterances"] == 31
    assert summary["minutes"] == round(sum(u.duration for u in utterances) / 60, 2)


@needs_espeak
def test_speakers_are_disjoint_in_the_manifest(corpus):
    of = {split: {u.speaker for u in read_manifest(corpus) if u.split == split} for split in spoken_numbers.SPLITS}
    assert [len(of[split]) for split in spoken_numbers.SPLITS] == [6, 1, 1]
    assert len(set.union(*of.values())) == 8


@needs_espeak
def test_rough_voices_do_not_hear_the_time_of_day():
    orders = [("twenty past six", espeak.Voice(f"en+{variant}")) for variant in ("f2", "f3", "sandro")]
    first, version = espeak.speak_afresh(orders)
    time.sleep(1.1)  # eSpeak NG would seed its noise with another second
    again, _ = espeak.speak_afresh(orders)
    assert all(map(np.array_equal, first, again))
    assert re.fullmatch(r"\d+\.\d+.*", version)


@needs_espeak
def test_bit_identical_whatever_the_workers(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(spoken_numbers, "SHARD_SIZE", 12)  # two shards in train
    one = corpus_json(make(tmp_path / "one", n_workers=1))
    many = corpus_json(make(tmp_path / "many", n_workers=4))
    assert one == many
    assert one["digest"] != corpus_json(corpus)["digest"], "the shards are part of the identity"


@needs_espeak
def test_another_seed_is_another_corpus_and_a_larger_one_begins_the_same(corpus, tmp_path):
    other, larger = make(tmp_path, seed=4), make(tmp_path, n_train=30)
    assert len({corpus.parent.name, other.parent.name, larger.parent.name}) == 3
    assert not set(digests(other, "train")) & set(digests(corpus, "train"))
    assert digests(larger, "train")[:20] == digests(corpus, "train")
    assert digests(larger, "test") == digests(corpus, "test")


@needs_espeak
def test_voices_differ():
    waves = [espeak.speak("twenty past six", espeak.Voice(name)) for name in ("en", "en-us+f3", "en-gb-scotland+m1")]
    spectra = [np.abs(np.fft.rfft(wave, 1 << 16)) for wave in waves]
    for i in range(3):
        for j in range(i):
            assert np.corrcoef(spectra[i], spectra[j])[0, 1] < 0.7


@needs_espeak
@pytest.mark.parametrize("name", ["martian", "en+nobody"])  # eSpeak NG itself takes `en` for the second
def test_an_unknown_voice_is_named(name):
    with pytest.raises(DataError, match=re.escape(f"no voice '{name}'")):
        espeak.speak("one", espeak.Voice(name))


@needs_espeak
def test_a_deep_installation_speaks_too(tmp_path, monkeypatch):
    import espeakng_loader

    deep = tmp_path / ("d" * 150)  # eSpeak NG has 160 bytes for the path of its data
    deep.mkdir()
    (deep / "espeakng_loader").symlink_to(Path(espeakng_loader.__file__).parent)
    expected, _ = espeak.speak_afresh([("one", espeak.Voice())])
    monkeypatch.setenv("PYTHONPATH", str(deep))
    spoken, _ = espeak.speak_afresh([("one", espeak.Voice())])
    assert np.array_equal(spoken[0], expected[0])


# ---- made once, whole


@needs_espeak
def test_the_second_call_speaks_nothing(corpus, monkeypatch):
    monkeypatch.setattr(spoken_numbers, "_build", lambda *_: pytest.fail("synthesised again"))
    assert make(corpus.parents[1]) == corpus


@needs_espeak
def test_a_swept_corpus_is_made_again(tmp_path):
    manifest = make(tmp_path)
    before = corpus_json(manifest)
    next((manifest.parent / "audio").iterdir()).unlink()
    assert corpus_json(make(tmp_path)) == before
    assert all(u.audio.is_file() for u in read_manifest(manifest))


@needs_espeak
def test_a_killed_build_is_never_taken_as_complete(tmp_path):
    child = make_elsewhere(tmp_path, n_train=300)
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob(".*.building-*/audio/*.flac")):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not list(tmp_path.glob("*/manifest.jsonl"))
    manifest = make(tmp_path, n_train=300)
    assert len(read_manifest(manifest)) == 311
    assert {p.name for p in tmp_path.iterdir()} == {manifest.parent.name, f".{manifest.parent.name}.lock"}


@needs_espeak
def test_two_processes_at_once_make_one_corpus(tmp_path):
    count = f"b = s._build\ns._build = lambda *a: (open({str(tmp_path / 'builds')!r}, 'a').write('x'), b(*a))"
    children = [make_elsewhere(tmp_path / "cache", count) for _ in range(2)]
    answers = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    assert (tmp_path / "builds").read_text() == "x"


@needs_espeak
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, {resource.RLIM_INFINITY}))"
    _, error = make_elsewhere(tmp_path, limit).communicate(timeout=60)
    assert "asr_lab.errors.DiskFullError" in error
    assert [p.suffix for p in tmp_path.iterdir()] == [".lock"]


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "espeakng_loader.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(DataError, match=re.escape("pip install 'asr-lab[synth]'")):
        make(tmp_path / "cache")
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".lock"]
