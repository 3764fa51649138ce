"""Transcription: cutting without loss, golden formats, the run's own hypotheses, and every kind of bad file."""

import io
import json
import subprocess
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.build import build
from asr_lab.data.segments import Cutter, Pcm, Recording, Segment
from asr_lab.errors import DataError, RunError
from asr_lab.evaluate import evaluate
from asr_lab.run import Run
from asr_lab.text.subtitles import JsonLines, Passage, PlainText, SubRip, TimedWord, WebVtt, cues
from asr_lab.transcribe import Job, Transcriber
from asr_lab.types import Hypothesis

from .conftest import RATE, make_run, only_line, tiny


def sound(*parts: float, seed: int = 0) -> np.ndarray:
    """A tone for each positive number of seconds, noise 40 dB below it for each negative one."""
    noise = np.random.default_rng(seed)
    pieces = []
    for part in parts:
        n = round(abs(part) * RATE)
        tone = 0.3 * np.sin(2 * np.pi * 440 / RATE * np.arange(n)) if part > 0 else np.zeros(n)
        pieces.append(tone + 0.002 * noise.standard_normal(n))
    return np.concatenate(pieces).astype(np.float32)


def cut(samples: np.ndarray, max_s: float, pause_s: float | None = None, block: int = 1000) -> list[Segment]:
    cutter = Cutter(RATE, max_s, pause_s)
    found = [s for i in range(0, len(samples), block) for s in cutter.feed(samples[i : i + block])]
    return [*found, *cutter.end()]


def spans(segments: list[Segment]) -> list[tuple[float, float]]:
    return [(s.start, s.end) for s in segments]


class TestCutter:
    @given(
        parts=st.lists(st.floats(0.05, 3.0), min_size=1, max_size=12),
        block=st.integers(1, 3 * RATE),
        pause_s=st.sampled_from([None, 0.3, 1.0]),
        seed=st.integers(0, 3),
    )
    @settings(max_examples=25, deadline=None)
    def test_pieces_of_the_recording_in_order_that_hold_all_of_its_sound(self, parts, block, pause_s, seed):
        samples = sound(*(p if i % 2 == 0 else -p for i, p in enumerate(parts)), seed=seed)
        found = cut(samples, 2.0, pause_s, block)
        covered = np.zeros(len(samples), dtype=int)
        for s in found:
            first = round(s.start * RATE)
            assert len(s.samples) <= 2 * RATE
            assert np.array_equal(s.samples, samples[first : first + len(s.samples)])
            covered[first : first + len(s.samples)] += 1
        assert covered.max() == 1 and all(a.end <= b.start + 1e-9 for a, b in pairwise(found))
        assert (covered[np.abs(samples) > 0.05] == 1).all()

    @given(st.lists(st.integers(1, 20_000), min_size=1, max_size=20), st.sampled_from([None, 0.4]))
    @settings(max_examples=10, deadline=None)
    def test_how_the_blocks_fall_does_not_matter(self, sizes, pause_s):
        samples = sound(1.2, -0.5, 0.7, -0.9, 3.0, -0.3, 0.4)
        cutter, at, found = Cutter(RATE, 2.0, pause_s), 0, []
        for size in [*sizes, len(samples)]:
            found += cutter.feed(samples[at : at + size])
            at += size
        found += cutter.end()
        assert spans(found) == spans(cut(samples, 2.0, pause_s, 97))

    def test_the_longest_pause_of_the_second_half_is_cut(self):
        found = cut(sound(1.0, -0.9, 2.0, -0.3, 1.0, -0.6, 1.0, -0.3, 3.0, seed=1), 8.0)
        # The pauses of the second half are at 3.9, 5.2 and 6.8 s; the one of 0.6 s is cut in its middle, at 5.5 s.
        assert found[0].end == pytest.approx(5.2 + 0.2, abs=0.03)
        assert found[1].start == pytest.approx(5.8 - 0.2, abs=0.03)

    def test_an_early_pause_is_cut_before_any_sound_is(self):
        assert cut(sound(1.0, -0.4, 9.0), 8.0)[0].end == pytest.approx(1.2, abs=0.03)

    def test_sound_without_a_pause_is_cut_where_it_is_quietest_and_nothing_is_lost(self):
        samples = sound(10.0)
        dip = slice(round(3.2 * RATE), round(3.23 * RATE))
        samples[dip] *= 0.5
        found = cut(samples, 4.0)
        assert found[0].end == pytest.approx(3.215, abs=0.03)
        assert np.array_equal(np.concatenate([s.samples for s in found]), samples)

    @pytest.mark.parametrize("level", [0.0, 1e-5])
    def test_silence_is_no_segment(self, level):
        assert cut(level * np.random.default_rng(0).standard_normal(10 * RATE).astype(np.float32), 2.0) == []

    def test_a_long_silence_between_words_is_left_out(self):
        found = cut(sound(0.5, -60, 0.5), 5.0)
        assert spans(found) == [(0.0, pytest.approx(0.7, abs=0.03)), (pytest.approx(60.3, abs=0.03), 61.0)]

    def test_a_constant_offset_is_no_sound(self):
        assert len(cut(sound(0.5, -3.0, 0.5) + np.float32(0.2), 2.0)) == 2

    def test_a_pause_ends_a_live_segment_at_once(self):
        cutter = Cutter(RATE, 20.0, 0.5)
        assert list(cutter.feed(sound(-1.0, 1.0, -0.4))) == []
        (segment,) = cutter.feed(sound(-0.2, seed=1))
        assert (segment.start, segment.end) == (pytest.approx(0.8, abs=0.03), pytest.approx(2.2, abs=0.03))

    def test_memory_does_not_grow_with_the_recording(self):
        blocks = [sound(1.5, -0.5, 2.2, -0.3, seed=s) for s in range(4)]
        cutter, seconds = Cutter(RATE, 20.0, None), 0.0
        tracemalloc.start()
        try:
            for i in range(70):  # 5 minutes, 10 MB
                seconds += sum(len(s.samples) for s in cutter.feed(blocks[i % 4])) / RATE
            assert seconds > 250 and tracemalloc.get_traced_memory()[1] < 4e6
        finally:
            tracemalloc.stop()

    def test_too_short_to_be_cut(self):
        with pytest.raises(ValueError, match=r"at most 0\.1 s"):
            Cutter(RATE, 0.1, None)


def collect(source: Recording | Pcm, found: list[Segment]) -> None:
    for s in source.segments():
        found.append(s)


class TestSources:
    def test_a_file_that_fits_is_one_whole(self, tmp_path):
        samples = sound(-1.0, 1.0, -1.0)
        soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
        (segment,) = Recording(tmp_path / "a.wav", "mix", 3.0).segments()
        assert segment.start == 0 and np.array_equal(segment.samples, samples)

    @pytest.mark.parametrize("form", ["wav", "flac", "ogg"])
    def test_a_long_file_is_read_in_blocks(self, tmp_path, form):
        path = tmp_path / f"a.{form}"
        soundfile.write(path, np.stack([sound(*[2.5, -0.5] * 8), np.zeros(24 * RATE)], axis=1), RATE)
        whole, _ = soundfile.read(path, dtype="float32")
        assert spans(list(Recording(path, 0, 5.0).segments())) == spans(cut(whole[:, 0], 5.0))
        with pytest.raises(DataError, match="channel not in the file"):
            list(Recording(path, 2, 5.0).segments())

    def test_what_comes_before_a_break_is_given(self, tmp_path):
        path = tmp_path / "a.flac"
        soundfile.write(path, sound(*[2.5, -0.5] * 20), RATE)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        found = []
        with pytest.raises(DataError, match="truncated file"):
            collect(Recording(path, "mix", 5.0), found)
        assert found and found[-1].end > 15

    def test_samples_that_are_no_numbers(self, tmp_path):
        soundfile.write(tmp_path / "a.wav", np.array([0, np.nan, 0], dtype=np.float32), RATE, subtype="FLOAT")
        with pytest.raises(DataError, match="no numbers"):
            list(Recording(tmp_path / "a.wav", "mix", 5.0).segments())

    def test_raw_samples(self):
        samples = (32767 * sound(1.0, -1.0, 0.5)).astype("<i2")
        found = list(Pcm(Trickle(samples.tobytes(), 777), RATE, 20.0, 0.5).segments())
        assert spans(found) == spans(cut(samples.astype(np.float32) / 32768, 20.0, 0.5)) and len(found) == 2

    @pytest.mark.parametrize(
        ("data", "line", "n"),
        [
            (b"", "it is empty", 0),
            (b"RIFF1234WAVE", "a WAV file came", 0),
            ((32767 * sound(0.5)).astype("<i2").tobytes() + b"\0", "ends within a sample", 1),
        ],
    )
    def test_no_raw_samples(self, data, line, n):
        found = []
        with pytest.raises(DataError, match=line):
            collect(Pcm(io.BytesIO(data), RATE, 20.0, 0.5), found)
        assert len(found) == n

    def test_ctrl_c_ends_a_stream_and_loses_nothing(self):
        class Microphone(Trickle):
            def read1(self, size):
                return super().read1(size) or self.stop()

            def stop(self):
                raise KeyboardInterrupt

        stream = Microphone((32767 * sound(0.5)).astype("<i2").tobytes(), 1000)
        assert spans(list(Pcm(stream, RATE, 20.0, 0.5).segments())) == [(0.0, 0.5)]


class Trickle(io.BytesIO):
    """A pipe that has a few bytes at a time."""

    def __init__(self, data: bytes, n: int):
        super().__init__(data)
        self.n = n

    def read1(self, size=-1):
        return self.read(self.n)


def passage(*words: tuple[str, float, float], end: float = 60.0, joint: str = " ") -> Passage:
    return Passage(0.0, end, joint.join(w for w, *_ in words), [TimedWord(*w) for w in words], -1.23456, joint)


TWO = passage(("a<b", 0.5, 0.75), ("&", 3661.0, 3661.25), end=3661.5)


class TestFormats:
    def test_text(self):
        assert PlainText(None)(TWO) == "a<b &\n" and PlainText("x.wav")(TWO) == "x.wav\ta<b &\n"
        assert PlainText(None)(passage()) == ""

    def test_json(self):
        golden = (
            '{"start": 0.0, "end": 3661.5, "text": "a<b &", "score": -1.2346, "words": [{"word": "a<b", "start": 0.5, '
            '"end": 0.75}, {"word": "&", "start": 3661.0, "end": 3661.25}]}\n'
        )
        assert JsonLines(None)(TWO) == golden
        row = json.loads(JsonLines("é.wav")(Passage(0, 1, "", None, float("-inf"))))
        assert row == {"file": "é.wav", "start": 0, "end": 1, "text": "", "score": None, "words": None}

    def test_subrip_goes_on_counting(self):
        form = SubRip(None)
        assert form(TWO) == (
            "1\n00:00:00,500 --> 00:00:01,500\na<b\n\n2\n01:01:01,000 --> 01:01:01,500\n&\n\n"
        )  # fmt: skip
        assert form(passage(("c", 1, 3))).startswith("3\n00:00:01,000 --> 00:00:03,000\nc\n\n")

    def test_webvtt(self):
        form = WebVtt(None)
        assert form.head + form(TWO) == (
            "WEBVTT\n\n1\n00:00:00.500 --> 00:00:01.500\na&lt;b\n\n2\n01:01:01.000 --> 01:01:01.500\n&amp;\n\n"
        )

    def test_lines_are_full_but_no_longer_than_42_columns(self):
        words = [(9 * "x", i / 4, i / 4 + 0.2) for i in range(10)]
        assert [c.text.count("x") for c in cues(passage(*words))] == [36, 36, 18]
        assert [len(c.text) for c in cues(passage(("y" * 50, 0, 1), ("z", 1, 2)))] == [50, 1]
        wide = [("字", i / 10, i / 10 + 0.1) for i in range(30)]
        assert [len(c.text) for c in cues(passage(*wide, joint=""))] == [21, 9]

    def test_a_line_stands_7_s_at_the_most(self):
        found = cues(passage(("a", 0, 1), ("b", 5, 6.9), ("c", 6.9, 7.1), ("d", 20, 40)))
        assert [(c.start, c.end, c.text) for c in found] == [
            (0, 6900, "a b"), (6900, 7900, "c"), (20000, 27000, "d"),
        ]  # fmt: skip

    def test_words_without_times_share_the_passage_by_their_length(self):
        found = cues(Passage(10.0, 20.0, "aaaa bbbbbb", None, 0.0))
        assert [(c.start, c.end, c.text) for c in found] == [(10000, 14000, "aaaa"), (14000, 20000, "bbbbbb")]

    @given(st.lists(st.tuples(st.text("ab&", min_size=1, max_size=30), st.floats(0, 9), st.floats(0, 9)), max_size=15))
    def test_no_line_over_another_and_no_word_lost(self, items):
        at, words = 0.0, []
        for text, gap, length in items:
            words.append((text, at + gap, at + gap + length))
            at += gap
        found = cues(passage(*words, end=at + 9))
        assert " ".join(c.text for c in found) == " ".join(text for text, *_ in words)
        assert all(0 <= c.start < c.end for c in found) and all(a.end <= b.start for a, b in pairwise(found))


def untrained(folder: Path, overrides: list[str]) -> Run:
    """A run whose checkpoint has fresh weights and says many labels."""
    run = make_run(folder, overrides)
    torch.manual_seed(3)
    parts = build(run.config)
    parts.task.belongings["moments"] = parts.data.moments()
    with torch.no_grad():
        for name, p in parts.task.decoder.named_parameters():
            p.mul_(6)
            if name.endswith("bias"):
                p[0] = -2.0  # the blank
    run.checkpoints.mkdir()
    saved = {"state_dict": parts.task.state_dict(), "global_step": 0, "belongings": parts.task.belongings}
    torch.save(saved, run.best_checkpoint)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory, tones) -> Run:
    return untrained(tmp_path_factory.mktemp("use") / "run", tiny(tones, "encoder=bilstm", "cache=none"))


@pytest.fixture(scope="module")
def long_file(tmp_path_factory, tones) -> Path:
    """The test utterances, 1.5 s apart."""
    path = tmp_path_factory.mktemp("long") / "long.wav"
    pieces = [p for i in range(6) for p in (soundfile.read(tones.parent / f"test{i}.wav")[0], sound(-1.5, seed=i))]
    soundfile.write(path, np.concatenate(pieces), RATE)
    return path


def files(tones: Path, n: int = 6) -> list[Recording]:
    return [Recording(tones.parent / f"test{i}.wav", "mix", 20.0) for i in range(n)]


def cut_at(path: Path, max_s: float) -> Recording:
    return Recording(path, "mix", max_s)


def texts(transcriber: Transcriber, sources) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for source, item in transcriber(sources):
        if isinstance(item, Passage):
            found.setdefault(Path(source.name).stem, []).append(item.text)
    return found


def hypotheses(run: Run) -> dict[str, list[str]]:
    evaluate(run, ["test"])
    rows = (run.folder / "evaluate" / "best.test.jsonl").read_text().splitlines()
    return {r["id"]: [r["hyp"]] for r in map(json.loads, rows)}


class TestTranscriber:
    @pytest.mark.parametrize(
        "overrides",
        [
            ["encoder=bilstm", "frontend/cmvn=none"],
            ["encoder=conformer", "data.min_duration_s=0.5"],
            ["encoder=gru", "frontend/cmvn=global", "preprocess=vad", "tokenizer=bpe"],
        ],
    )
    def test_the_hypotheses_are_the_runs_own(self, tmp_path, tones, overrides):
        # The cache would round features to float16, and fresh weights have labels that lie close to each other.
        run = untrained(tmp_path / "run", tiny(tones, *overrides, "cache=none"))
        expected = hypotheses(run)
        assert texts(Transcriber(run, "best", [], 80.0), files(tones)) == expected
        assert len({t for (t,) in expected.values()}) > 3  # it says something

    def test_training_saves_all_that_it_takes(self, trained, tones):
        run, _ = trained("encoder=bilstm", "frontend/cmvn=global", "trainer.max_epochs=1")
        tones_too = [s for s, item in Transcriber(run, "last", [], 80.0)(files(tones)) if item is None]
        assert len(tones_too) == 6

    def test_neither_order_nor_size_of_batches_matters(self, run, tones, long_file):
        sources = [*files(tones), cut_at(long_file, 4.0)]
        expected = texts(Transcriber(run, "best", [], 80.0), sources)
        assert texts(Transcriber(run, "best", [], 1.0), sources[::-1]) == expected
        together = list(Transcriber(run, "best", [], 3.0)(sources))
        assert [s for s, item in together if item is None] == sources  # one after the other

    def test_a_long_file_has_the_words_of_its_segments(self, run, long_file, tmp_path):
        source = cut_at(long_file, 3.0)
        found = [p for _, p in Transcriber(run, "best", [], 80.0)([source]) if isinstance(p, Passage)]
        parts = []
        for i, s in enumerate(source.segments()):
            soundfile.write(tmp_path / f"{i}.wav", s.samples, RATE, subtype="FLOAT")
            parts.append(Recording(tmp_path / f"{i}.wav", "mix", 20.0))
        alone = [p for _, p in Transcriber(run, "best", [], 80.0)(parts) if isinstance(p, Passage)]
        assert len(found) >= 5 and any(p.text for p in found)
        for whole, part, s in zip(found, alone, source.segments(), strict=True):
            assert whole.text == part.text and (whole.start, whole.end) == (s.start, s.end)
            assert whole.words and [w.start for w in whole.words] == pytest.approx(
                [s.start + w.start for w in part.words or []]
            )
        times = [t for p in found for w in p.words or [] for t in (w.start, w.end)]
        assert times == sorted(times)

    def test_frames_are_seconds_of_the_file(self, run):
        transcriber = Transcriber(run, "best", [], 80.0)
        labels = transcriber.task.tokenizer.encode("ab c")
        job = Job(100.0, 101.0, 0.1, torch.zeros(1))
        found = transcriber.passage(job, Hypothesis(labels, -1.0, [10, 12, 15, 60]))
        line = transcriber.timeline
        assert found.words == [
            ("ab", pytest.approx(99.9 + line.seconds(10)), pytest.approx(99.9 + line.seconds(13))),
            ("c", 101.0, 101.0),  # no later than its segment
        ]
        assert transcriber.passage(job, Hypothesis(labels, -1.0, None)).words is None
        transcriber.score_by = "cer"
        assert transcriber.passage(job, Hypothesis(labels[:2], -1.0, [1, 2]))[-1] == ""

    def test_a_file_is_one_speaker(self, run, long_file):
        config = {**run.config, "frontend": {**run.config["frontend"]}}
        config["frontend"]["cmvn"] = {**config["frontend"]["cmvn"], "scope": "speaker"}
        transcriber = Transcriber(Run(run.folder, config, run.factors), "best", [], 80.0)
        jobs = list(transcriber._prepared(cut_at(long_file, 3.0)))
        feats = torch.cat([job.feats for job in jobs])
        assert feats.mean(dim=0).abs().max() < 1e-3 and (feats.std(dim=0) - 1).abs().max() < 0.01
        assert max(job.feats.mean(dim=0).abs().max() for job in jobs) > 0.05  # not of each segment

    @pytest.mark.parametrize("encoder", ["bilstm", "conformer"])
    def test_clicks_and_silence_go_through(self, tones, tmp_path, encoder):
        run = untrained(tmp_path / "run", tiny(tones, f"encoder={encoder}"))
        sources = []
        for n in (1, 2, 100, 400):
            soundfile.write(tmp_path / f"{n}.wav", np.zeros(n), RATE)
            sources.append(Recording(tmp_path / f"{n}.wav", "mix", 20.0))
        found = [item for _, item in Transcriber(run, "best", [], 80.0)(sources)]
        assert [type(x) for x in found] == 4 * [Passage, type(None)]

    def test_any_rate_and_channel(self, run, tones, tmp_path):
        from torchaudio.functional import resample

        samples, _ = soundfile.read(tones.parent / "test0.wav", dtype="float32")
        up = resample(torch.from_numpy(samples), RATE, 44100).numpy()
        soundfile.write(tmp_path / "up.wav", np.stack([0 * up, up], axis=1), 44100, subtype="FLOAT")
        (expected,) = texts(Transcriber(run, "best", [], 80.0), files(tones, 1)).values()
        assert texts(Transcriber(run, "best", [], 80.0), [Recording(tmp_path / "up.wav", 1, 20.0)])["up"] == expected
        soundfile.write(tmp_path / "odd.wav", samples, 44101)
        ((_, mistake),) = Transcriber(run, "best", [], 80.0)([Recording(tmp_path / "odd.wav", "mix", 20.0)])
        assert "odd sampling rate" in str(mistake)

    def test_live_segments_come_one_by_one(self, run, long_file):
        samples, _ = soundfile.read(long_file, dtype="int16")
        stream = Trickle(samples.astype("<i2").tobytes(), 4000)
        said, at = [], []
        for _, item in Transcriber(run, "best", [], 80.0)([Pcm(stream, RATE, 20.0, 0.5)]):
            if isinstance(item, Passage):
                said.append(item)
                at.append(stream.tell() / 2 / RATE)
        assert len(said) == 6
        # Half a second of silence, less than half a block, and what a step takes.
        assert all(heard - (p.end - 0.2) < 0.5 + 0.25 + 0.15 for p, heard in zip(said, at, strict=True))

    def test_without_a_checkpoint_or_with_another(self, run, tmp_path):
        with pytest.raises(RunError, match="none was saved"):
            Transcriber(Run(tmp_path, run.config, {}), "best", [], 80.0)
        other = Run(tmp_path, run.config, {})
        other.checkpoints.mkdir()
        other.best_checkpoint.write_bytes(b"")
        with pytest.raises(RunError, match="cannot be loaded"):
            Transcriber(other, "best", [], 80.0)


class TestCommand:
    @pytest.fixture
    def go(self, asr_lab, run, tmp_path):
        return lambda *args, cwd=tmp_path: asr_lab("transcribe", str(run.folder), *map(str, args), cwd=cwd)

    def test_to_standard_output(self, go, run, tones):
        names = [r.name for r in files(tones)]
        one, many = go(names[0]), go(*names, "decoding.beam=1")
        expected = {f"{tones.parent}/{i}.wav": t for i, (t,) in hypotheses(run).items()}
        assert one.stdout == expected[names[0]] + "\n"
        assert many.stdout == "".join(f"{n}\t{expected[n]}\n" for n in names if expected[n])
        rows = [json.loads(line) for line in go(*names[:2], "--format", "json").stdout.splitlines()]
        assert [(r["file"], r["text"]) for r in rows] == [(n, expected[n]) for n in names[:2]]
        assert go(names[0], "--format", "vtt").stdout.startswith("WEBVTT\n\n1\n00:00:0")

    def test_into_a_folder_once(self, go, tones, tmp_path):
        names = [r.name for r in files(tones, 3)]
        assert go(*names[:2], "--out", "there", "--format", "srt").returncode == 0
        (tmp_path / "there" / "test0.srt").write_text("mine")
        done = go(*names, "--out", "there", "--format", "srt")
        assert sorted(p.name for p in (tmp_path / "there").iterdir()) == [f"test{i}.srt" for i in range(3)]
        assert (tmp_path / "there" / "test0.srt").read_text() == "mine"
        assert done.stderr == "asr-lab: 2 of 3 files were in there already\n" and done.stdout == ""

    def test_an_interrupted_command_keeps_what_is_done_and_goes_on(self, go, tones, long_file, tmp_path, monkeypatch):
        names = [r.name for r in files(tones)]
        args = [*names, long_file, "--batch-seconds", 2, "--max-segment", 3, "--format", "json"]
        assert go(*args, "--out", "whole").returncode == 0
        recognised, calls = Transcriber._done, []

        def until(self, waiting):
            calls.append(len(waiting))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return recognised(self, waiting)

        with monkeypatch.context() as m:
            m.setattr(Transcriber, "_done", until)
            stopped = go(*args, "--out", "there")
        assert stopped.returncode == 130 and stopped.stderr.startswith("asr-lab: interrupted; what is done is kept")
        there, whole = tmp_path / "there", tmp_path / "whole"
        assert {p.name for p in there.iterdir()} == {*(f"test{i}.jsonl" for i in range(6)), "long.jsonl.part"}
        part = (there / "long.jsonl.part").read_text()
        assert part and (whole / "long.jsonl").read_text().startswith(part)
        assert "6 of 7 files" in go(*args, "--out", "there").stderr
        assert {p.name: p.read_text() for p in there.iterdir()} == {p.name: p.read_text() for p in whole.iterdir()}

    def test_bad_files_are_told_and_the_others_done(self, go, tones, tmp_path):
        good = tones.parent / "test0.wav"
        (tmp_path / "empty.wav").write_bytes(b"")
        (tmp_path / "text.wav").write_text("no audio here")
        (tmp_path / "cut.wav").write_bytes(good.read_bytes()[:1000])
        soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
        bad = ["empty.wav", "gone.wav", "text.wav", "cut.wav", "none.wav", "."]
        done = go(*bad[:3], good, *bad[3:], tones.parent / "test1.wav", "--out", "there")
        assert done.returncode == 2
        kinds = [line.split(": ")[1] for line in done.stderr.splitlines()]
        assert kinds == ["empty file", "missing file", "not audio", "truncated file", "empty file", "missing file"]
        assert sorted(p.name for p in (tmp_path / "there").iterdir()) == ["test0.txt", "test1.txt"]

    def test_standard_input(self, go, long_file, monkeypatch):
        samples, _ = soundfile.read(long_file, dtype="int16")

        class Stdin:
            buffer = io.BytesIO(samples.astype("<i2").tobytes())

        monkeypatch.setattr(sys, "stdin", Stdin)
        assert 1 <= len(go("-", "--rate", RATE).stdout.splitlines()) <= 6
        Stdin.buffer = io.BytesIO(b"")
        assert "it is empty" in only_line(go("-", "--rate", RATE))

    @pytest.mark.parametrize(
        ("args", "line"),
        [
            (["decoding.beam=1"], "no file to transcribe"),
            (["a.wav", "decoding.beam=1,2"], "a list of values came"),
            (["a.wav", "decoding.baem=1"], "decoding.baem: no such key; did you mean 'decoding.beam'?"),
            (["a.wav", "--format", "srtt"], "--format srtt: no such format; did you mean 'srt'?"),
            (["a.wav", "b.wav", "--format", "srt"], "say where, as --out FOLDER"),
            (["x/a.wav", "a.flac", "--out", "o"], "x/a.wav and a.flac would both become o/a.txt"),
            (["-"], "say the sampling rate"),
            (["-", "a.wav", "--rate", "16000"], "standard input comes alone"),
            (["a.wav", "--rate", "16000"], "--rate is for standard input"),
            (["-", "--rate", "16"], "--rate 16: is no sampling rate"),
            (["a.wav", "--channel", "left"], "--channel left: is a number"),
            (["a.wav", "--max-segment", "0"], "--max-segment 0: at least 1 s"),
            (["a.wav", "--pause", "nan"], "--pause nan: at least 0.2 s"),
            (["a.wav", "--checkpoint", "beast"], "no checkpoint 'beast'"),
        ],
    )
    @pytest.mark.quick(5)
    def test_mistakes_are_one_line(self, go, args, line):
        assert line in only_line(go(*args))

    def test_a_folder_that_cannot_be(self, go, tones, tmp_path):
        (tmp_path / "file").write_text("")
        name = tones.parent / "test0.wav"
        assert "is a file" in only_line(go(name, "--out", "file"))
        assert "choose another --out" in only_line(go(name, "--out", "file/there"))


MEASURED = """
import resource, sys
from pathlib import Path
from asr_lab.data.segments import Recording
from asr_lab.run import Run
from asr_lab.transcribe import Transcriber
run, short, long = sys.argv[1:]
transcriber, peaks = Transcriber(Run.open(Path(run)), "best", [], 80.0), []
for name in (short, long):
    seconds = max((p.end for _, p in transcriber([Recording(Path(name), "mix", 20.0)]) if p), default=0)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(seconds, peaks[1] - peaks[0])
"""


@pytest.mark.slow
def test_three_hours_take_no_more_memory_than_fifteen_minutes(run, tmp_path):
    """The 3 hours are 346 MB as float32."""
    block = np.concatenate([sound(1.5, -0.5, 2.2, -0.3, 5.1, -0.4, seed=s) for s in range(6)])  # 60 s
    for name, minutes in (("short", 15), ("long", 180)):
        with soundfile.SoundFile(tmp_path / f"{name}.wav", "w", RATE, 1) as f:
            for _ in range(minutes):
                f.write(block)
    command = [sys.executable, "-c", MEASURED, run.folder, tmp_path / "short.wav", tmp_path / "long.wav"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, more_kb = map(float, done.stdout.split())
    assert seconds > 10_790 and more_kb < 60_000, done.stdout
