"""Forced alignment: words out of labels, frames to seconds, files by golden strings, and known tone positions."""

import json
import math
from collections import Counter
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from asr_lab.align import align, alignment
from asr_lab.build import Outline
from asr_lab.data.alignments import AlignedWord, Alignment, Timed, ctm, json_row, textgrid
from asr_lab.data.manifest import Problem, Utterance
from asr_lab.decoders import Span
from asr_lab.decoders.ctc import CtcDecoder
from asr_lab.errors import ConfigError, RunError
from asr_lab.run import Run
from asr_lab.sweep.cell import resolved
from asr_lab.text.phones import PhoneTokenizer
from asr_lab.text.timing import words_of
from asr_lab.text.tokenizer import CharTokenizer
from asr_lab.text.words import WordTokenizer
from asr_lab.timeline import Timeline

from .conftest import RATE, TONES, composed, make_run, only_line, tiny


class Pieces:
    """Labels as a subword tokenizer has them: `▁` is a space, also inside a label."""

    symbols: ClassVar[list[str]] = ["▁a", "▁", "b", "c▁d", "▁ab"]

    def decode(self, labels) -> str:
        return "".join(self.symbols[i] for i in labels).replace("▁", " ").removeprefix(" ")


LEXICON = {"cat": [("k", "ae", "t")], "at": [("ae", "t")], "a": [("ae",)]}
TOKENIZERS = {
    "char": CharTokenizer("ab c"),
    "word": WordTokenizer(["a", "bc"], has_unknown=True),
    "phones": PhoneTokenizer(LEXICON, Counter()),
    "pieces": Pieces(),
}


class TestWords:
    @pytest.mark.parametrize("name", TOKENIZERS)
    @given(data=st.data())
    def test_they_are_those_of_decode_and_in_order(self, name, data):
        tokenizer = TOKENIZERS[name]
        labels = data.draw(st.lists(st.integers(0, len(tokenizer.symbols) - 1), max_size=12))
        words = words_of(
            tokenizer, labels, [3 * i for i in range(len(labels))], [3 * i + 2 for i in range(len(labels))]
        )
        assert [w.text for w in words] == tokenizer.decode(labels).split()
        for w in words:
            assert (w.start, w.end) == (3 * w.first, 3 * (w.last - 1) + 2)
            assert w.first < w.last
            assert all(tokenizer.decode(labels[i : i + 1]).strip() for i in (w.first, w.last - 1))
        if name != "pieces":  # there a label may end one word and begin the next
            assert all(a.last <= b.first for a, b in pairwise(words))

    def test_spaces_and_boundaries_belong_to_no_word(self):
        tokenizer = TOKENIZERS["char"]
        labels = tokenizer.encode(" ab  c")
        assert words_of(tokenizer, labels, [0, 2, 5, 7, 8, 9]) == [("ab", 2, 6, 1, 3), ("c", 9, 10, 5, 6)]

    def test_a_label_over_a_space_is_in_both_words(self):
        assert words_of(Pieces(), [2, 3, 2], [0, 4, 8], [3, 6, 9]) == [("bc", 0, 6, 0, 2), ("db", 4, 9, 1, 3)]

    def test_as_many_frames_as_labels(self):
        with pytest.raises(ValueError, match="2 labels and 1 frames"):
            words_of(TOKENIZERS["char"], [0, 1], [0])


class TestTimeline:
    @pytest.mark.parametrize(
        ("overrides", "step", "first"),
        [
            # The stretch of frame u lies around sample 4 u hop; frames of log-mel are centred on t hop.
            (["encoder=conformer"], 0.04, -0.02),
            # Three frames side by side: the middle is that of frame 3 u + 1.
            (["encoder=bilstm"], 0.03, 0.010 - 0.015),
            (["encoder=bilstm", "frontend/head=stacking"], 0.06, 0.005 + 0.020 - 0.030),
            # Kaldi's first window of 25 ms begins with the audio.
            (["encoder=bilstm", "frontend=kaldi_fbank", "frontend.snip_edges=true"], 0.03, 0.0125 + 0.010 - 0.015),
            (["encoder=conformer", "frontend=kaldi_fbank", "frontend.snip_edges=false"], 0.04, 0.005 - 0.020),
        ],
    )
    def test_steps_and_centres(self, overrides, step, first):
        config = resolved(composed("size=tiny", *overrides))
        made = Outline.of(config)
        found = Timeline.of(made.frontend, made.head, made.encoder, config["data"]["sample_rate"])
        assert found == pytest.approx((step, first), abs=1e-3)


SPANS = [Span(0, 1, 2, -0.1), Span(1, 2, 4, -0.4), Span(2, 4, 5, -3.0), Span(3, 6, 7, -0.2)]


class Corpus:
    min_duration_s, score = 0.0, "wer"


class TestAlignment:
    def test_words_have_times_scores_and_labels(self):
        u = Utterance("u", "u.wav", 0.25, "ab c", channel=1)
        found = alignment(u, SPANS, TOKENIZERS["char"], Timeline(0.04, -0.02), Corpus())
        ab, c = found.words
        assert ab.word[:3] == ("ab", pytest.approx(0.02), pytest.approx(0.14))
        assert ab.word.score == pytest.approx(math.exp(-(0.1 + 2 * 0.4) / 3))
        assert [x.text for x in ab.labels] == ["a", "b"] and [x.text for x in found.labels] == ["a", "b", " ", "c"]
        assert c.word[:3] == ("c", pytest.approx(0.22), 0.25)  # no later than the recording
        assert found.channel == 2

    def test_the_padding_of_a_short_utterance_is_not_its_time(self):
        class Padded(Corpus):
            min_duration_s = 0.45

        u = Utterance("u", "u.wav", 0.25, "ab c")
        found = alignment(u, SPANS, TOKENIZERS["char"], Timeline(0.04, 0.0), Padded())
        assert [w.word.start for w in found.words] == [0.0, pytest.approx(0.14)]

    def test_words_are_written_as_the_text_has_them(self):
        u = Utterance("u", "u.wav", 1.0, "rare a")
        found = alignment(u, [Span(0, 1, 2, 0.0), Span(1, 3, 4, 0.0)], TOKENIZERS["word"], Timeline(0.1, 0), Corpus())
        assert [w.word.text for w in found.words] == ["rare", "a"]

    def test_characters_where_the_score_is_of_characters(self):
        class Characters(Corpus):
            score = "cer"

        u = Utterance("u", "u.wav", 1.0, "ab c")
        found = alignment(u, SPANS, TOKENIZERS["char"], Timeline(0.1, 0), Characters())
        assert [w.word.text for w in found.words] == ["a", "b", "c"]


A = Timed("a", 0.1, 0.25, 0.5)
QUOTED = Timed('b"', 0.25, 0.4, 0.25)
ONE = Alignment("s 1", 0.5, 1, [AlignedWord(A, [A]), AlignedWord(QUOTED, [QUOTED])], [A, QUOTED])


class TestFiles:
    def test_ctm(self):
        assert "".join(ctm([ONE])) == 's_1 1 0.100 0.150 a 0.500\ns_1 1 0.250 0.150 b" 0.250\n'

    def test_json(self):
        assert json_row(ONE)["words"][0] == {
            "word": "a", "start": 0.1, "end": 0.25, "score": 0.5,
            "labels": [{"label": "a", "start": 0.1, "end": 0.25, "score": 0.5}],
        }  # fmt: skip

    def test_textgrid(self):
        text = textgrid(ONE)
        tier = text[text.index("    item [1]") : text.index("    item [2]")]
        assert tier == GOLDEN
        assert text.startswith('File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 0.5\n')

    @given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.5)), max_size=6))
    def test_a_tier_covers_the_whole_without_overlaps(self, places):
        items = [Timed("w", s, min(1.0, s + d), 1.0) for s, d in sorted(places)]
        text = textgrid(Alignment("u", 1.0, 1, [], items))
        tier = text[text.index("item [2]") :]
        ends = [
            (float(lines[1].split(" = ")[1]), float(lines[2].split(" = ")[1]))
            for lines in (block.splitlines() for block in tier.split("intervals [")[1:])
        ]
        assert ends[0][0] == 0 and ends[-1][1] == 1
        assert all(start < end for start, end in ends)
        assert all(a[1] == b[0] for a, b in pairwise(ends))


GOLDEN = """    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 0.5
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.1
            text = ""
        intervals [2]:
            xmin = 0.1
            xmax = 0.25
            text = "a"
        intervals [3]:
            xmin = 0.25
            xmax = 0.4
            text = "b""\"
        intervals [4]:
            xmin = 0.4
            xmax = 0.5
            text = ""
"""


def forced(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> list[list[Span]]:
    """The best alignment of each utterance, one by one."""
    from torchaudio.functional import forced_align, merge_tokens

    found = []
    for row, n, sequence, k in zip(self.log_probs(hidden), lens.tolist(), labels, label_lens.tolist(), strict=True):
        path, scores = forced_align(row[None, :n].clone(), sequence[None, :k] + 1, blank=self.BLANK)
        found.append([Span(s.token - 1, s.start, s.end, s.score) for s in merge_tokens(path[0], scores[0])])
    return found


@pytest.fixture
def able(monkeypatch):
    """CTC's decoder aligns, whatever else it can."""
    if not hasattr(CtcDecoder, "align"):
        monkeypatch.setattr(CtcDecoder, "align", forced, raising=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tones) -> Run:
    from asr_lab.train import train

    run = make_run(tmp_path_factory.mktemp("align") / "run", tiny(tones, "encoder=bilstm"))
    train(run)
    return run


class TestRun:
    def test_every_utterance_and_word_of_a_split(self, run, able, tones):
        rows = [json.loads(line) for line in tones.read_text().splitlines()]
        texts = {r["audio_filepath"].removesuffix(".wav"): r for r in rows if r["split"] == "test"}
        found = {a.id: a for a in align(run, "test", None) if isinstance(a, Alignment)}
        assert found.keys() == texts.keys()
        for name, a in found.items():
            assert " ".join(w.word.text for w in a.words) == texts[name]["text"]
            assert "".join(x.text for x in a.labels) == texts[name]["text"]
            times = [t for x in a.labels for t in (x.start, x.end)]
            assert times == sorted(times) and times[0] >= 0 and times[-1] <= a.duration
            assert all(0 <= x.score <= 1 for x in a.labels)

    def test_a_manifest_of_ones_own(self, run, able, tones, tmp_path):
        rows = [json.loads(line) for line in tones.read_text().splitlines()][:3]
        for row, text in zip(rows, ["a b", "99", "abcd" * 30], strict=True):
            row.update(text=text, audio_filepath=str(tones.parent / row["audio_filepath"]))
            del row["split"]
        rows[0]["id"] = "good"
        rows.append({**rows[0], "id": "gone", "audio_filepath": "gone.wav"})
        (tmp_path / "own.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        found = list(align(run, "test", tmp_path / "own.jsonl"))
        kinds = [x.kind if isinstance(x, Problem) else x.id for x in found]
        assert sorted(kinds) == sorted(["characters outside the tokenizer", "missing file", "too few frames", "good"])

    @pytest.mark.parametrize(("form", "files"), [("ctm", 1), ("json", 1), ("textgrid", 6)])
    def test_command(self, run, able, tmp_path, asr_lab, form, files):
        done = asr_lab("align", str(run.folder), "--format", form, "--out", "here", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / "here").iterdir())) == files
        assert done.stdout.startswith("6 utterances, ")

    def test_the_command_goes_on_after_a_problem_and_says_so(self, run, able, tones, tmp_path, asr_lab):
        row = json.loads(tones.read_text().splitlines()[0])
        row["audio_filepath"] = str(tones.parent / row["audio_filepath"])
        rows = [{**row, "id": "x", "text": "a"}, {**row, "id": "y", "text": "9"}]
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        done = asr_lab("align", str(run.folder), "m.jsonl", "--out", "here", cwd=tmp_path)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert "asr-lab: y: characters outside the tokenizer" in done.stderr
        assert (tmp_path / "here" / "m.ctm").read_text().startswith("x 1 ")

    def test_mistakes_are_one_line(self, run, able, tmp_path, asr_lab):
        for args, line in (
            (["--format", "crm"], "--format crm: no such format; did you mean 'ctm'?"),
            (["--split", "tset"], "no split 'tset'; did you mean 'test'?"),
            (["nowhere.jsonl"], "nowhere.jsonl: cannot read the manifest"),
            (["--checkpoint", "beast"], "no checkpoint 'beast'"),
        ):
            assert line in only_line(asr_lab("align", str(run.folder), *args, cwd=tmp_path))
        (tmp_path / "file").write_text("")
        assert "is a file" in only_line(asr_lab("align", str(run.folder), "--out", "file", cwd=tmp_path))

    def test_a_decoder_that_cannot_names_those_that_can(self, run, able, monkeypatch):
        config = {**run.config, "decoder": {"_target_": "tests.test_align.Pieces"}}
        with pytest.raises(ConfigError, match=r"does not align; these do: ctc"):
            next(align(Run(run.folder, config, {}), "test", None))

    def test_cut_audio_has_no_times(self, run, able):
        preprocess = resolved(composed("preprocess=vad"))["preprocess"]
        with pytest.raises(ConfigError, match="cuts audio away"):
            next(align(Run(run.folder, {**run.config, "preprocess": preprocess}, {}), "test", None))

    def test_without_a_checkpoint(self, run, able, tmp_path):
        with pytest.raises(RunError, match="none was saved"):
            next(align(Run(tmp_path, run.config, {}), "test", None))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["bilstm", "conformer"])
def test_tones_are_found_where_they_are(encoder, able, tones, tmp_path):
    """Each tone lasts 0.15 s, the first after 0.05 s; its label lies within two frames of its middle."""
    from asr_lab.train import train

    overrides = [f"encoder={encoder}", "trainer.max_epochs=60", "optimizer.lr=0.01"]
    run = make_run(tmp_path / "run", tiny(tones, *overrides))
    train(run)
    lead, length = 400 / RATE, 0.15
    off = []
    for a in align(run, "train", None, "last"):
        assert isinstance(a, Alignment)
        for i, x in enumerate(a.labels):
            if x.text in TONES:
                off.append((x.start + x.end) / 2 - (lead + (i + 0.5) * length))
    off = torch.tensor(off)
    assert off.abs().max() < 0.08 and off.median().abs() < 0.03, off
