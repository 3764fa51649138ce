"""Error analysis: counts and tables with known answers, files, and mistakes."""

import json
from collections import Counter

import numpy as np
import pytest

from asr_lab.files import write_jsonl
from asr_lab.report.alignment import aligned, listing
from asr_lab.report.errors import analyse, rate
from asr_lab.report.errors_page import write_page
from asr_lab.run import Run

from .conftest import make_run, only_line, tiny

ROWS = [
    {"id": "u1", "ref": "the cat sat", "hyp": "the bat sat", "speaker": "x", "duration": 1.0},
    {"id": "u2", "ref": "the dog", "hyp": "the", "speaker": "x", "duration": 2.0},
    {"id": "u3", "ref": "a cat", "hyp": "oh a cat", "speaker": "y", "duration": 0.5},
    {"id": "u4", "ref": "the zebra", "hyp": "the bat", "speaker": "y", "duration": 1.0},
    {"id": "u5", "ref": "a dog", "hyp": "a dog", "speaker": "y", "duration": 1.0},
]
TRAIN = Counter({"the": 100, "cat": 9, "sat": 1, "dog": 10, "a": 2})


@pytest.fixture(scope="module")
def answer():
    return analyse(aligned(ROWS, "wer"), "wer", TRAIN)


def values(rows, *keys):
    return [tuple(row[k] for k in keys) for row in rows]


class TestAnalysis:
    def test_counts(self, answer):
        assert {k: answer[k] for k in ("utterances", "words", "right")} == {"utterances": 5, "words": 11, "right": 8}
        assert [answer[k] for k in ("substitutions", "deletions", "insertions")] == [2, 1, 1]
        assert answer["rate"][0] == pytest.approx(4 / 11)
        assert answer["rates"]["deletions"][0] == pytest.approx(1 / 11)
        assert answer["sentence_error_rate"][0] == pytest.approx(4 / 5)

    def test_most_frequent(self, answer):
        most = answer["most_frequent"]
        assert values(most["substitutions"], "ref", "hyp", "count") == [("cat", "bat", 1), ("zebra", "bat", 1)]
        assert most["deletions"] == [{"ref": "dog", "hyp": "", "count": 1, "examples": ["u2"]}]
        assert most["insertions"] == [{"ref": "", "hyp": "oh", "count": 1, "examples": ["u3"]}]

    def test_examples_are_few_and_never_the_same(self):
        rows = [{"id": f"u{i}", "ref": "a a", "hyp": "b b"} for i in range(5)]
        [row] = analyse(aligned(rows, "wer"), "wer", None)["most_frequent"]["substitutions"]
        assert row == {"ref": "a", "hyp": "b", "count": 10, "examples": ["u0", "u1", "u2"]}

    def test_by_speaker_the_worst_first(self, answer):
        assert values(answer["by_speaker"], "speaker", "utterances", "words") == [("x", 2, 5), ("y", 3, 6)]
        assert [s["rate"][0] for s in answer["by_speaker"]] == [pytest.approx(2 / 5), pytest.approx(2 / 6)]

    def test_by_length_never_parts_equal_lengths(self, answer):
        assert values(answer["by_length"], "from", "to", "utterances") == [("2", "2", 4), ("3", "3", 1)]
        assert answer["by_length"][0]["rate"][0] == pytest.approx(3 / 8)

    def test_by_speech_rate_in_characters_a_second(self, answer):
        # 9 / 1, 6 / 2, 4 / 0.5, 8 / 1, 4 / 1
        assert sum(b["utterances"] for b in answer["by_speech_rate"]) == 5
        assert answer["by_speech_rate"][0]["from"] == "3.0" and answer["by_speech_rate"][-1]["to"] == "9.0"

    def test_by_frequency_insertions_count_for_nothing(self, answer):
        found = [(b["from"], b["to"], b["words"], b["rate"][0]) for b in answer["by_frequency"]]
        assert found == [
            (0, 0, 1, 1.0),  # zebra
            (1, 1, 1, 0.0),  # sat
            (2, 9, 4, pytest.approx(1 / 4)),  # cat cat a a
            (10, 99, 2, pytest.approx(1 / 2)),  # dog dog
            (100, 999, 3, 0.0),  # the the the
        ]

    def test_out_of_vocabulary(self, answer):
        oov = answer["out_of_vocabulary"]
        assert (oov["words"], oov["types"], oov["missed"]) == (1, 1, [{"word": "zebra", "count": 1}])
        assert oov["share"] == pytest.approx(1 / 11)
        assert oov["recall"][0] == 0 and oov["recall_of_the_others"][0] == pytest.approx(8 / 10)

    def test_characters_for_cer(self):
        answer = analyse(aligned([{"id": "u", "ref": "你好 吗", "hyp": "你号吗"}], "cer"), "cer", Counter("你好吗"))
        assert (answer["unit"], answer["words"], answer["substitutions"]) == ("character", 3, 1)
        assert answer["out_of_vocabulary"]["words"] == 0

    def test_isolated_words_have_a_confusion_matrix(self, answer):
        assert answer["confusion"] is None
        rows = [
            {"id": str(i), "ref": ref, "hyp": hyp} for i, (ref, hyp) in enumerate([("a", "a"), ("b", "a"), ("b", "")])
        ]
        found = analyse(aligned(rows, "wer"), "wer", None)["confusion"]
        assert found == {"names": ("(nothing)", "a", "b"), "counts": ((0, 0, 0), (0, 1, 0), (1, 1, 0))}

    def test_without_speakers_durations_and_training(self):
        rows = [{"id": str(i), "ref": "a b", "hyp": "a"} for i in range(3)]
        answer = analyse(aligned(rows, "wer"), "wer", None)
        assert answer["by_speaker"] == answer["by_speech_rate"] == []
        assert answer["by_frequency"] is None and answer["out_of_vocabulary"] is None
        assert answer["rate"] == [0.5, 0.5, 0.5]

    def test_intervals_draw_speakers_where_there_are_enough(self):
        rng = np.random.default_rng(0)
        bad = rng.random(20) < 0.5  # whole speakers are good or bad, so the blocks matter
        rows = [
            {"id": f"{s}-{i}", "ref": "a", "hyp": "b" if bad[s] else "a", "speaker": str(s)}
            for s in range(20)
            for i in range(10)
        ]
        by_speaker = analyse(aligned(rows, "wer"), "wer", None)
        alone = analyse(aligned([{k: v for k, v in r.items() if k != "speaker"} for r in rows], "wer"), "wer", None)
        assert (by_speaker["resampled"], alone["resampled"]) == ("speakers", "utterances")
        wide, narrow = (found["rate"][2] - found["rate"][1] for found in (by_speaker, alone))
        assert wide > 2 * narrow

    def test_one_unit_has_no_interval(self):
        assert rate([1], [2], None) == [0.5, None, None]
        assert rate([1, 1], [2, 2], ["x", "x"]) == [0.5, None, None]
        assert rate([], [], None) == [None, None, None]


def test_listing_has_the_worst_first():
    text = list(listing(aligned([*ROWS[:3], {"id": "u0", "ref": "a b", "hyp": "c d"}], "wer")))
    assert text[0] == "id: u0\nScores: C=0  S=2  D=0  I=0\nREF:  a b\nHYP:  c d\nEVAL: S S\n"
    assert [t.split()[1] for t in text] == ["u0", "u2", "u3", "u1"]
    assert "Scores: C=2  S=0  D=0  I=1\nREF:  ** a cat\nHYP:  oh a cat\nEVAL: I" in text[2]


def test_the_page_is_escaped_and_complete(tmp_path):
    rows = [*ROWS, {"id": "<b>", "ref": "<script> & x", "hyp": "x", "speaker": "<i>", "duration": 1.0}]
    utterances = aligned(rows, "wer")
    answer = analyse(utterances, "wer", TRAIN) | {"without_training": ""}
    page = write_page(tmp_path / "errors.html", "run <1>", answer, utterances).read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page and "run &lt;1&gt;" in page
    for said in ("By length", "By speech rate", "By speaker", "By frequency", "zebra", "The 5 worst utterances", "∅"):
        assert said in page
    assert page.count("<svg") == 5
    assert "taken for which" not in page
    names = aligned([{"id": "u", "ref": "<a>", "hyp": "b"}], "wer")
    matrix = write_page(tmp_path / "errors.html", "run", analyse(names, "wer", TRAIN) | {"without_training": ""}, names)
    assert "taken for which" in matrix.read_text() and "<a>" not in matrix.read_text()
    nothing = analyse(utterances[4:5], "wer", None) | {"without_training": "the corpus is not here"}
    assert "the corpus is not here" in write_page(tmp_path / "errors.html", "run", nothing, utterances[4:5]).read_text()


class TestCommand:
    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory, tones) -> Run:
        """A run's folder with hypotheses: no training is needed for them."""
        run = make_run(tmp_path_factory.mktemp("errors") / "run", tiny(tones, "encoder=bilstm"))
        rows = [json.loads(line) for line in tones.read_text().splitlines()]
        ids = [r["audio_filepath"].removesuffix(".wav") for r in rows if r["split"] == "test"]
        texts = [r["text"] for r in rows if r["split"] == "test"]
        write_jsonl(run.hyps_file("test"), [{"id": i, "ref": t, "hyp": t[1:]} for i, t in zip(ids, texts, strict=True)])
        return run

    def test_json_takes_facts_from_the_manifest(self, run, tmp_path, asr_lab):
        done = asr_lab("errors", str(run.folder), "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert [s["speaker"] for s in answer["by_speaker"]] and answer["by_speech_rate"]
        assert sum(b["words"] for b in answer["by_frequency"]) == answer["words"]
        assert answer["sentence_error_rate"][0] == 1.0

    def test_tables_page_and_listing(self, run, tmp_path, asr_lab):
        args = ["--page", "errors.html", "--listing", "worst.txt"]
        done = asr_lab("errors", str(run.folder), *args, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "By speaker" in done.stdout and "6 utterances" in done.stdout
        assert (tmp_path / "worst.txt").read_text().count("REF:") == 6
        assert "<svg" in (tmp_path / "errors.html").read_text()
        printed = asr_lab("errors", str(run.folder), "--listing", "-", cwd=tmp_path)
        assert printed.stdout.strip() == (tmp_path / "worst.txt").read_text().strip()

    def test_without_the_corpus_the_rest_is_there(self, run, tmp_path, asr_lab):
        import shutil

        import yaml

        folder = tmp_path / "moved"
        shutil.copytree(run.folder, folder)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["data"]["manifest"] = "gone.jsonl"
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        done = asr_lab("errors", str(folder), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "the corpus is not here" in done.stdout and "By length" in done.stdout

    @pytest.mark.parametrize(
        ("content", "line"),
        [
            (None, "hyps.jsonl: no hypotheses (No such file or directory)"),
            ("", "hyps.jsonl: is empty"),
            ("[1]\n", "hyps.jsonl:1: a line has an object with the texts id, ref and hyp"),
            ('{"id": "u", "ref": "a"}\n', "hyps.jsonl:1: a line has"),
            ('{"id": "u", "ref": " ", "hyp": "a"}\n', "the reference of u is empty"),
            ("{]\n", "hyps.jsonl:1: not a JSON object"),
        ],
    )
    def test_broken_hypotheses_are_one_line(self, run, tmp_path, asr_lab, content, line):
        if content is not None:
            (tmp_path / "hyps.jsonl").write_text(content)
        assert line in only_line(asr_lab("errors", str(run.folder), "--hyps", "hyps.jsonl", cwd=tmp_path))

    def test_mistakes_are_one_line(self, run, tmp_path, asr_lab):
        assert "no hypotheses of 'tset'; did you mean 'test'?" in only_line(
            asr_lab("errors", str(run.folder), "--split", "tset", cwd=tmp_path)
        )
        assert "is a folder" in only_line(asr_lab("errors", str(run.folder), "--page", ".", cwd=tmp_path))
        assert "cannot be written" in only_line(
            asr_lab("errors", str(run.folder), "--listing", "/proc/nothing/x", cwd=tmp_path)
        )
