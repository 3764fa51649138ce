"""Other toolkits' formats: the same utterances after a round trip, and one clear line for each kind of bad input."""

import csv
import errno
import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asr_lab.data import audio
from asr_lab.data.formats import Source, Target, _gather, _sound, load, names
from asr_lab.data.formats._gather import Wanted, import_corpus
from asr_lab.data.formats._sound import content, file_keys
from asr_lab.data.formats._writing import by_split, new_folder
from asr_lab.data.manifest import Utterance, read_manifest
from asr_lab.errors import AsrLabError, DataError, DiskFullError

from .conftest import RATE, only_line, write_tones

FORMATS = names()
ENDING = {"nemo": ".jsonl", "lhotse": ".jsonl.gz", "table": ".csv"}  # the others are folders
COPYING = ("audiofolder", "huggingface", "webdataset")


def source(path, **changes) -> Source:
    return Source(**{"path": path, "root": None, "columns": {}, "quotes": True, "embedded": Path("nowhere"), **changes})


def imported(format, path, to, decode=False, sample_rate=None, skip_bad=False, **changes):
    return import_corpus(format, [(source(path, **changes), None)], to, Wanted(sample_rate, decode, skip_bad))


def need(format):
    if format == "huggingface":
        pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> list[Path]:
    """Four files: 16 bit mono, 24 bit stereo, float, and FLAC under the name of a WAV."""
    folder = tmp_path_factory.mktemp("sounds of speech")  # blanks in a path are no reason to fail
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 2))
    soundfile.write(folder / "mono.wav", noise[:, 0], RATE, subtype="PCM_16")
    soundfile.write(folder / "stereo.wav", noise, RATE, subtype="PCM_24")
    soundfile.write(folder / "float.wav", noise[:, 1], RATE, subtype="FLOAT")
    soundfile.write(folder / "lying.wav", noise[:, 0], RATE, format="FLAC")
    return [folder / f"{name}.wav" for name in ("mono", "stereo", "float", "lying")]


# Round trips

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
WORD = TEXT.map(lambda text: "".join(c for c in text if not c.isspace())).filter(bool)
LINE = TEXT.map(lambda text: "".join(c for c in text if c not in "\r\n").strip(" \t")).filter(str.strip)


def utterances(sounds, ids, texts, speakers):
    def build(rows):
        us = []
        for number, (id, text, speaker, which, extent, split) in enumerate(rows):
            stereo = which == 1
            offset, duration, channel = {
                "whole": (None, 1.0, None),
                "segment": (0.25 + number / 100, 0.5, None),
                "channel": (None, 1.0, 1 if stereo else None),
                "both": (0.125, 0.375, 0 if stereo else None),
            }[extent]
            us.append(Utterance(id, sounds[which], duration, text, speaker, split, RATE, offset, channel))
        return us

    row = st.tuples(
        ids,
        texts,
        st.none() | speakers,
        st.integers(0, len(sounds) - 1),
        st.sampled_from(["whole", "segment", "channel", "both"]),
        st.sampled_from(["train", "dev", "test_other"]),
    )
    return st.lists(row, min_size=1, max_size=4, unique_by=lambda r: r[0]).map(build)


def samples(u) -> np.ndarray:
    return audio.read(u.audio, u.member, u.offset, u.duration, audio.MIX if u.channel is None else u.channel)[0]


def assert_same(format, before, after):
    before, after = (sorted(us, key=lambda u: u.id) for us in (before, after))
    for old, new in zip(before, after, strict=True):
        assert (new.id, new.text, new.speaker, new.split) == (old.id, old.text, old.speaker, old.split)
        assert new.duration == pytest.approx(old.duration, abs=1e-6)
        assert new.sample_rate == (None if format == "kaldi" else RATE)  # for which it has no file
        if format in COPYING:
            assert (new.offset, new.channel) == (None, None) or old.channel is None
            np.testing.assert_array_equal(samples(new), samples(old))
        else:
            assert (new.audio, new.offset, new.channel) == (old.audio, old.offset, old.channel)


@pytest.mark.parametrize("format", FORMATS)
def test_round_trip(format, sounds, tmp_path):
    need(format)
    kaldi = format == "kaldi"  # lists with blanks between their cells
    count = iter(range(10**6))

    @given(utterances(sounds, WORD if kaldi else TEXT, LINE if kaldi else TEXT, WORD if kaldi else TEXT))
    @settings(
        max_examples=2 if format == "huggingface" else 20,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    def check(before):
        if kaldi:  # whose convention for "unknown" it is
            before = [u._replace(speaker=None) if u.speaker == u.id else u for u in before]
            if len({u.split for u in before}) == 1:  # a single folder says nothing
                before = [u._replace(split="train") for u in before]
        target = tmp_path / f"{next(count)}{ENDING.get(format, '')}"
        load(format).write(before, Target(target, 20_000, 0))
        done = imported(format, target, tmp_path / f"back{next(count)}", decode=True)
        assert_same(format, before, done.utterances)
        assert read_manifest(done.manifest) == done.utterances

    check()


def test_tsv_and_plain_cuts_too(sounds, tmp_path):
    us = [Utterance("a", sounds[0], 1.0, 'say "tab"\t, "', None, None, RATE)]
    for format, name in (("table", "t.tsv"), ("lhotse", "c.jsonl")):
        load(format).write(us, Target(tmp_path / name, 1, 0))
        assert_same(format, us, imported(format, tmp_path / name, tmp_path / format).utterances)


@pytest.mark.parametrize("format", FORMATS)
def test_a_corpus_without_splits_has_none_afterwards(format, tones, tmp_path):
    need(format)
    us = [u._replace(split=None) for u in read_manifest(tones)[:5]]
    target = tmp_path / f"my_corpus{ENDING.get(format, '')}"
    load(format).write(us, Target(target, 20_000, 0))
    assert {u.split for u in imported(format, target, tmp_path / "back").utterances} == {None}


# Audio that is copied


def test_whole_files_are_copied_and_segments_cut_without_loss(sounds):
    def of(which, **changes):
        return content(Utterance("u", sounds[which], 1.0, "x")._replace(**changes))

    assert of(0) == ("wav", sounds[0].read_bytes(), 1.0)
    assert of(3) == ("flac", sounds[3].read_bytes(), 1.0)  # by what it holds
    segment = of(1, offset=0.25, duration=0.5, channel=1)
    assert (segment.extension, segment.seconds) == ("flac", 0.5)
    cut, _ = soundfile.read(io.BytesIO(segment.content), dtype="int32")
    whole, _ = soundfile.read(sounds[1], dtype="int32")
    np.testing.assert_array_equal(cut, whole[RATE // 4 : RATE * 3 // 4, 1])
    assert of(2, offset=0.5, duration=0.5).extension == "wav"  # floats, which FLAC cannot hold
    with pytest.raises(DataError, match=r"u: .*mono.wav has no such segment or channel"):
        of(0, offset=2.0, duration=0.5)
    with pytest.raises(DataError, match=r"u: .*mono.wav has no such segment or channel"):
        of(0, channel=1)


def test_keys_are_fit_for_files_and_distinct():
    ids = ["a.b", "a/b", "A_b", "../../etc/passwd", "日本語", "x" * 300, "y" + "x" * 299, "a_b_2"]
    keys = list(file_keys(Utterance(i, Path("x"), 1.0, "t") for i in ids))
    assert len({key.casefold() for key in keys}) == len(ids)
    assert all(key.replace("-", "_").isidentifier() or key[0].isdigit() for key in keys)
    assert all(len(key) < 70 for key in keys)


# Bad input, through every importer. The sources are written here, not by the exporters.


def broken_bytes(kind) -> tuple[str, bytes | None]:
    """(extension, content) of a file that is wrong in one way; None: it is not there."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, RATE)
    out = io.BytesIO()
    soundfile.write(out, noise[:0] if kind == "headeronly" else noise, RATE, format="WAV")
    flac = io.BytesIO()
    soundfile.write(flac, noise, RATE, format="FLAC")
    return {
        "missing": ("wav", None),
        "empty": ("wav", b""),
        "text": ("wav", b"this is not audio\n" * 50),
        "cut": ("wav", out.getvalue()[:4000]),
        "cutflac": ("flac", flac.getvalue()[:6000]),
    }.get(kind, ("wav", out.getvalue()))


def write_source(format, folder, rows, sound) -> Path:
    """A source of this format with `rows` of id, text and duration, each with a file `ID.EXTENSION` of these bytes."""
    folder.mkdir()
    extension, data = sound
    good = broken_bytes("good")[1]
    contents = {f"{k}.{extension}": good for k in range(len(rows) - 1)}
    contents |= {} if data is None else {f"{len(rows) - 1}.{extension}": data}
    if format != "webdataset":
        for name, these in contents.items():
            (folder / name).write_bytes(these)
    named = [(f"{k}.{extension}", row) for k, row in enumerate(rows)]
    return globals()[f"_{format}"](folder, named, contents)


def _nemo(folder, named, _):
    lines = [{"audio_filepath": name, **row} for name, row in named]
    return jsonl(folder / "m.json", lines)


def _table(folder, named, _):
    with open(folder / "t.csv", "w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["path", "sentence", "id", "duration"])
        table.writerows([name, row["text"], row["id"], row["duration"]] for name, row in named)
    return folder / "t.csv"


def _audiofolder(folder, named, _):
    jsonl(folder / "metadata.jsonl", [{"file_name": name, **row} for name, row in named])
    return folder


def _kaldi(folder, named, _):
    for file, values in {
        "wav.scp": [f"{row['id']} {name}" for name, row in named],
        "text": [f"{row['id']} {row['text']}" for _, row in named],
        "utt2dur": [f"{row['id']} {row['duration']}" for _, row in named],
    }.items():
        (folder / file).write_text("".join(f"{v}\n" for v in values))
    return folder


def _lhotse(folder, named, _):
    return jsonl(folder / "c.jsonl", [cut(row["id"], name, row["duration"], row["text"]) for name, row in named])


def _webdataset(folder, named, contents):
    members = []
    for name, row in named:
        members += [(name, contents[name])] if name in contents else []
        members.append((f"{name.partition('.')[0]}.json", json.dumps(row).encode()))
    tar(folder / "s-0.tar", members)
    return folder


def _huggingface(folder, named, contents):
    datasets = pytest.importorskip("datasets")
    if len(contents) < len(named):  # only a path can lead nowhere
        made = datasets.Dataset.from_list([{"audio": str(folder / name), **row} for name, row in named])
    else:
        rows = [{"audio": {"bytes": contents[name], "path": name}, **row} for name, row in named]
        made = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio())
    made.save_to_disk(str(folder / "set"))
    return folder / "set"


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tar(path, members):
    with tarfile.open(path, "w") as t:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    return path


def cut(id, name, duration, text, **changes):
    recording = {
        "id": id,
        "sources": [{"type": "file", "channels": [0], "source": name}],
        "sampling_rate": RATE,
        "num_samples": round(duration * RATE),
        "duration": duration,
    }
    supervision = {"id": id, "recording_id": id, "start": 0.0, "duration": duration, "channel": 0, "text": text}
    values = {"id": id, "start": 0.0, "duration": duration, "channel": 0, "type": "MonoCut"}
    return {**values, "supervisions": [supervision], "recording": recording, **changes}


# kind: (what the last row has, what is said)
BAD = {
    "missing": ({}, "missing file: "),
    "empty": ({}, "empty file: "),
    "headeronly": ({}, "empty file: "),
    "text": ({}, "not audio: "),
    "cut": ({}, "truncated file: "),
    "cutflac": ({}, "truncated file: "),
    "lie": ({"duration": 5.0}, "duration that lies: "),
    "no text": ({"text": ""}, "empty text: "),
    "blank": ({"text": "  "}, "empty text: "),
    "twice": ({"id": "u0"}, "duplicated id: "),
    "rate": ({}, "wrong sampling rate: "),
    "negative": ({"duration": -1.0}, "unreadable"),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "kind",
    [k if k in ("text", "cut", "no text", "twice", "lie") else pytest.param(k, marks=pytest.mark.slow) for k in BAD],
)
@pytest.mark.quick(10)
def test_bad_input_through_every_importer(format, kind, tmp_path, asr_lab):
    need(format)
    change, says = BAD[kind]
    rows = [{"id": f"u{k}", "text": "a b", "duration": 1.0} for k in range(2)]
    rows.append({"id": "u2", "text": "c d", "duration": 1.0, **change})
    made = write_source(format, tmp_path / "source", rows, broken_bytes(kind))
    options = ["--decode"] if kind == "cutflac" else ["--sample-rate", "16000"] if kind == "rate" else []
    line = only_line(asr_lab("data", "import", format, str(made), "--to", "out/new.jsonl", *options, cwd=tmp_path))
    if kind == "missing" and format == "webdataset":
        says = "unreadable sample: no audio"
    assert says in line
    where = {
        "nemo": f"{made}:3: ",
        "table": f"{made}:4: ",
        "lhotse": f"{made}:3: ",
        "audiofolder": f"{made / 'metadata.jsonl'}:3: ",
        "kaldi": f"{made}/",
        "huggingface": f"{made} row 2: ",
        "webdataset": f"{made / 's-0.tar'}/2",
    }[format]
    if kind == "rate":  # of all of them, and the first one is shown
        assert "(and 2 more; --skip-bad lists them and leaves them out)" in line
    else:
        assert line.startswith(f"asr-lab: {where}"), line
    if format == "kaldi" and kind != "rate":
        assert ":3: " in line
    assert [p.name for p in (tmp_path / "out").iterdir()] == []


@pytest.mark.parametrize("format", ["nemo", "lhotse", "audiofolder"])
@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{not json", "not JSON"),
        (b"[1]", "a JSON object is wanted, a list came"),
        (b"{}", "missing|no recording"),
        (b'{"text": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_unreadable_lines_are_given_by_number(format, line, says, tmp_path):
    rows = [{"id": f"u{k}", "text": "a", "duration": 1.0} for k in range(2)]
    made = write_source(format, tmp_path / "source", rows, broken_bytes("good"))
    file = made / "metadata.jsonl" if made.is_dir() else made
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([lines[0], b"", line, lines[1]]))
    with pytest.raises(DataError, match=rf":3: unreadable line: .*({says})"):
        imported(format, made, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"duration": "2"}, "duration must be a positive number of seconds, '2' came"),
        ({"duration": float("nan")}, "duration must be a positive number of seconds, nan came"),
        ({"duration": True}, "duration must be a positive number of seconds, True came"),
        ({"duration": None}, "unmeasured is fine"),
        ({"audio_filepath": 3}, "the audio must be one path, 3 came"),
        ({"audio_filepath": ["a.wav", "b.wav"]}, "the audio must be one path"),
        ({"text": None}, "key 'text' is missing"),
        ({"text": 5}, "text must be a string, 5 came"),
        ({"text": "\ud800"}, "half a character"),
        ({"offset": -1}, "offset must be a number of seconds from 0, -1 came"),
        ({"offset": 7.0}, "lasts 1.000 s, the segment ends at"),
        ({"channel": 0.5}, "channel must be a whole number from 0, 0.5 came"),
        ({"channel_selector": "average"}, "channel must be a whole number from 0, 'average' came"),
        ({"sample_rate": 16000}, "has 8000 Hz, 16000 wanted"),
        ({"sampling_rate": 0}, "sample_rate must be a positive whole number of Hz, 0 came"),
        ({"shard_id": 0}, "tarred manifest"),
    ],
)
def test_values_that_cannot_be(change, says, tmp_path):
    (tmp_path / "x.wav").write_bytes(broken_bytes("good")[1])
    row = {"audio_filepath": "x.wav", "duration": 1.0, "text": "a", **change}
    made = jsonl(tmp_path / "m.json", [row])
    if says == "unmeasured is fine":
        assert imported("nemo", made, tmp_path / "out").utterances[0].duration == 1.0
        return
    with pytest.raises(DataError) as caught:
        imported("nemo", made, tmp_path / "out")
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{made}:1: ")


@pytest.mark.parametrize("format", FORMATS)
def test_sources_that_are_not_there_or_hold_nothing(format, tmp_path):
    need(format)
    with pytest.raises(DataError, match=r"nowhere.* is not there"):
        imported(format, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for path in ("empty", "file"):
        with pytest.raises(DataError, match=rf"{path}(/wav.scp)?: "):
            imported(format, tmp_path / path, tmp_path / "out")
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


# Kaldi


def kaldi_folder(folder, sounds, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / {"wav": "wav.scp"}.get(name, name)).write_text(text)
    return folder


def test_kaldi_as_its_recipes_write_it(tmp_path, sounds):
    folder = kaldi_folder(
        tmp_path / "data",
        sounds,
        wav=f"rec1\t{sounds[0]}\nrec2 {sounds[1]}\n",
        text="ann-1 HELLO  WORLD\nann-2   two\nbob-1\tthree\nann-3 four\n",
        utt2spk="ann-1 ann\nann-2 ann\nann-3 ann\nbob-1 bob-1\n",
        segments="ann-1 rec1 0.10 0.60\nann-2 rec1 0.5 -1\nann-3 rec2 0 -1\nbob-1 rec2 0 0.5 1\n",
    )
    done = {u.id: u for u in imported("kaldi", folder, tmp_path / "out").utterances}
    assert done["ann-1"] == Utterance("ann-1", sounds[0], 0.5, "HELLO  WORLD", "ann", None, None, 0.1, None)
    assert done["ann-2"] == Utterance("ann-2", sounds[0], 0.5, "two", "ann", None, None, 0.5, None)
    assert done["ann-3"] == Utterance("ann-3", sounds[1], 1.0, "four", "ann", None, None, None, None)
    assert done["bob-1"] == Utterance("bob-1", sounds[1], 0.5, "three", None, None, None, 0.0, 1)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"wav": "a sph2pipe -f wav x.sph |\n"}, "wav.scp:1: unreadable line: .* is a command .*x.sph"),
        ({"wav": "a | cat x\n"}, "is a command"),
        ({"wav": "a x.ark:123\n"}, "points into an archive"),
        ({"wav": "a\n"}, "wav.scp:1: unreadable line: nothing follows 'a'"),
        ({"wav": "a {0}\na {0}\n"}, "wav.scp:2: duplicated id: 'a' is also in .*wav.scp:1"),
        ({"wav": "a {0}\nb {0}\n"}, "wav.scp:2: unreadable line: b has no line in .*text"),
        ({"text": "a x\nb y\n"}, "text:2: missing file: b has no line in .*wav.scp"),
        ({"text": "a \n"}, "text:1: empty text: a has no transcript"),
        ({"segments": "a rec 0 1\n"}, "segments:1: unreadable line: recording rec has no line in .*wav.scp"),
        ({"segments": "a a 0\n"}, "segments:1: unreadable line: 'utterance recording start end' is wanted"),
        ({"segments": "a a 0.5 0.2\n"}, "the segment ends at 0.2, before its start at 0.5"),
        ({"segments": "a a x 0.2\n"}, "a time in seconds is wanted, 'x' came"),
        ({"segments": "a a 0 1 left\n"}, "the channel must be a number from 0, 'left' came"),
        ({"segments": "a a 3 4\n"}, "segments:1: segment outside the file: .* the segment starts at 3.000"),
        ({"segments": "a a 0.5 4\n"}, "segments:1: duration that lies: .* the segment ends at 4.000"),
        ({"segments": "a a 3 -1\n"}, "segments:1: segment outside the file: .* ends before 3 s"),
        ({"segments": "a a 0 0.5 3\n"}, "channel not in the file: "),
        ({"utt2dur": "a long\n"}, "a time in seconds is wanted, 'long' came"),
    ],
)
def test_kaldi_folders_that_are_wrong(files, says, tmp_path, sounds):
    files = {"wav": "a {0}\n", "text": "a x\n", **files}
    folder = kaldi_folder(tmp_path / "data", sounds, **{k: v.replace("{0}", str(sounds[0])) for k, v in files.items()})
    with pytest.raises(DataError, match=says):
        imported("kaldi", folder, tmp_path / "out", decode=True)


def test_kaldi_lists_that_must_be_there(tmp_path, sounds):
    folder = kaldi_folder(tmp_path / "data", sounds, wav=f"a {sounds[0]}\n")
    with pytest.raises(DataError, match=r"data/text: cannot be read \(No such file or directory\)"):
        imported("kaldi", folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "a b"}, "id 'a b' has white space"),
        ({"speaker": "a\u3000b"}, "speaker .* has white space"),
        ({"text": "a\nb"}, "text .* has a line break"),
        ({"member": "x.wav"}, "lies in the tar .*export it as webdataset"),
        ({"split": "../up"}, "split '../up' is no name for a file"),
    ],
)
def test_what_kaldi_cannot_hold(change, says, tmp_path, sounds):
    us = [Utterance("u", sounds[0], 1.0, "x")._replace(**change)]
    with pytest.raises(DataError, match=says):
        load("kaldi").write(us, Target(tmp_path / "out", 1, 0))
    assert not list(tmp_path.iterdir())


def test_kaldi_sorts_by_bytes(tmp_path, sounds):
    us = [Utterance(i, sounds[0], 1.0, "x", i[:1]) for i in ("b-1", "a-2", "B-1", "é-1")]
    load("kaldi").write(us, Target(tmp_path / "out", 1, 0))
    assert [line.split()[0] for line in (tmp_path / "out/wav.scp").read_text().splitlines()] == [
        "B-1",
        "a-2",
        "b-1",
        "é-1",
    ]
    assert (tmp_path / "out/spk2utt").read_text() == "B B-1\na a-2\nb b-1\né é-1\n"


# Lhotse


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"type": "MixedCut"}, "a MixedCut; only MonoCut"),
        ({"recording": None}, "has no recording"),
        ({"supervisions": []}, "no supervision, so no text"),
        ({"supervisions": [{}]}, "key 'text' is missing"),
        ({"supervisions": 5}, "no cut as Lhotse writes them"),
        ({"channel": 1}, "channels \\[1\\] are not together in one"),
        ({"start": "0"}, "no cut as Lhotse writes them|offset must be"),
    ],
)
def test_cuts_that_cannot_be_read(change, says, tmp_path, sounds):
    made = jsonl(tmp_path / "c.jsonl", [cut("u", str(sounds[0]), 1.0, "x", **change)])
    with pytest.raises(DataError, match=f"c.jsonl:1: unreadable line: .*({says})"):
        imported("lhotse", made, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"transforms": [{"name": "Speed"}]}, "transforms"),
        ({"sources": [{"type": "command", "channels": [0], "source": "rm"}]}, "source is a command, not a file"),
        ({"sources": [{"type": "url", "channels": [0], "source": "u"}]}, "source is a url, not a file"),
        ({"sampling_rate": 16000}, "wrong sampling rate"),
    ],
)
def test_recordings_that_cannot_be_read(change, says, tmp_path, sounds):
    row = cut("u", str(sounds[0]), 1.0, "x")
    row["recording"] |= change
    with pytest.raises(DataError, match=f"c.jsonl:1: .*{says}"):
        imported("lhotse", jsonl(tmp_path / "c.jsonl", [row]), tmp_path / "out")


def test_torn_gzip_is_said(tmp_path):
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "u"}\n' * 1000)[:-10])
    with pytest.raises(DataError, match=r"c.jsonl.gz: cannot be read"):
        imported("lhotse", path, tmp_path / "out")


def test_each_supervision_of_a_long_cut_is_an_utterance(tmp_path, sounds):
    row = cut("long", str(sounds[1]), 1.0, "x")
    row["recording"]["sources"][0]["channels"] = [0, 1]
    base = {"recording_id": "r", "channel": 0}
    row["supervisions"] = [
        {**base, "id": "s1", "start": 0.1, "duration": 0.3, "text": "one", "speaker": "a"},
        {**base, "id": "s2", "start": 0.5, "duration": 0.4, "text": "two", "speaker": "b"},
    ]
    done = imported("lhotse", jsonl(tmp_path / "c.jsonl", [row]), tmp_path / "out").utterances
    assert [(u.id, u.offset, u.duration, u.text, u.speaker, u.channel) for u in done] == [
        ("s1", 0.1, 0.3, "one", "a", 0),
        ("s2", 0.5, 0.4, "two", "b", 0),
    ]


def test_lhotse_reads_our_cuts_and_we_read_its(tmp_path, sounds):
    lhotse = pytest.importorskip("lhotse")
    us = [
        Utterance("mono", sounds[0], 1.0, "eins", "s", "train", RATE),
        Utterance("right", sounds[1], 0.5, "zwei", None, "train", RATE, 0.25, 1),
        Utterance("mix", sounds[1], 1.0, "drei", "s", "test", RATE),
    ]
    load("lhotse").write(us, Target(tmp_path / "cuts.jsonl.gz", 1, 0))
    cuts = lhotse.CutSet.from_file(tmp_path / "cuts.jsonl.gz")
    for u, c in zip(us, cuts, strict=True):
        lhotse.validate(c)
        np.testing.assert_allclose(c.load_audio().mean(axis=0), samples(u), atol=1e-6)
        assert (c.supervisions[0].text, c.supervisions[0].speaker, c.custom["split"]) == (u.text, u.speaker, u.split)
    lhotse.CutSet.from_cuts(list(cuts)).to_file(tmp_path / "theirs.jsonl")
    assert_same("lhotse", us, imported("lhotse", tmp_path / "theirs.jsonl", tmp_path / "out").utterances)


# Tables


def table(tmp_path, text, name="t.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    for stem in "ab":
        (tmp_path / f"{stem}.wav").write_bytes(broken_bytes("good")[1])
    return path


@pytest.mark.parametrize(
    ("text", "name", "encoding"),
    [
        ('path,sentence\r\na.wav,"say ""yes"", now"\r\nb.wav,zwölf\r\n', "t.csv", "utf-8-sig"),
        ('path;sentence\na.wav;say "yes", now\nb.wav;zwölf\n', "t.csv", "utf-8"),
        ('client_id\tpath\tsentence\nx\ta.wav\tsay "yes", now\nx\tb.wav\tzwölf\n', "t.tsv", "utf-8"),
        ('path,sentence\na.wav,"say ""yes"", now"\n\nb.wav,zwölf', "t.csv", "utf-8"),
    ],
)
def test_tables_as_others_write_them(text, name, encoding, tmp_path):
    done = imported("table", table(tmp_path, text, name, encoding), tmp_path / "out").utterances
    assert [(u.id, u.text, u.duration) for u in done] == [("a", 'say "yes", now', 1.0), ("b", "zwölf", 1.0)]


def test_quotes_as_letters(tmp_path):
    path = table(tmp_path, 'path\tsentence\na.wav\t"Why?\nb.wav\tsaid" she\n', "t.tsv")
    with pytest.raises(DataError, match=r"t.tsv:2: unreadable line: .*--no-quotes"):
        imported("table", path, tmp_path / "out")
    done = imported("table", path, tmp_path / "out", quotes=False).utterances
    assert [u.text for u in done] == ['"Why?', 'said" she']


def test_rows_over_several_lines_are_counted_by_lines(tmp_path):
    path = table(tmp_path, 'path,text,duration\na.wav,"two\nlines",1\nb.wav,x,soon\n')
    with pytest.raises(DataError, match=r"t.csv:4: unreadable line: duration must be .* 'soon' came"):
        imported("table", path, tmp_path / "out")


def test_columns_by_name(tmp_path):
    path = table(tmp_path, "datei,wort,anfang,ende\na.wav,eins,0.1,0.4\na.wav,zwei,0.5,0.9\n")
    with pytest.raises(
        DataError, match="no column for audio: there are datei, wort, anfang, ende; --column audio=NAME"
    ):
        imported("table", path, tmp_path / "out")
    columns = {"audio": "datei", "text": "wort", "offset": "anfang", "end": "ende"}
    done = imported("table", path, tmp_path / "out", columns=columns).utterances
    assert [(u.id, u.offset, u.duration, u.text) for u in done] == [
        ("a-0.1", 0.1, 0.3, "eins"),
        ("a-0.5", 0.5, 0.4, "zwei"),
    ]
    with pytest.raises(DataError, match="no column 'datie' for audio; did you mean 'datei'"):
        imported("table", path, tmp_path / "again", columns={**columns, "audio": "datie"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,text\na.wav\n", "t.csv:2: unreadable line: 1 cells for 2 columns"),
        ("path,text\na.wav,x,y\n", "t.csv:2: unreadable line: 3 cells for 2 columns"),
        ("path,text\n,x\n", "t.csv:2: unreadable line: key 'audio_filepath' is missing"),
        ("path,text\na.wav,\n", "t.csv:2: empty text"),
        ("path,text\n", "no utterance in it"),
        ("", "no column for audio"),
    ],
)
def test_tables_that_are_wrong(text, says, tmp_path):
    with pytest.raises(DataError, match=says):
        imported("table", table(tmp_path, text), tmp_path / "out")


def test_table_in_another_encoding(tmp_path):
    path = table(tmp_path, "path,text\na.wav,x\nb.wav,zwölf\n", encoding="latin-1")
    with pytest.raises(DataError, match=r"t.csv:3: unreadable line: not UTF-8"):
        imported("table", path, tmp_path / "out")


# Tar shards


def test_foreign_shards(tmp_path):
    good = broken_bytes("good")[1]
    (tmp_path / "wds").mkdir()
    members = [("k/0001.mp3.json", b"{}"), ("0001.wav", good), ("0001.txt", "eins\n".encode("utf-8-sig"))]
    members += [("__meta__.json", b"{}"), ("._0001.wav", b"x"), ("0002.WAV", good)]
    members += [("0002.json", json.dumps({"text": "zwei", "speaker": 7, "path": "/gone", "offset": 3}).encode())]
    tar(tmp_path / "wds/train-0.tar", members[1:])
    tar(tmp_path / "wds/part-1.tar", [("0001.wav", good), ("0001.txt", b"drei")])
    done = imported("webdataset", tmp_path / "wds", tmp_path / "out").utterances
    train = tmp_path / "wds/train-0.tar"
    assert done == [
        Utterance("part-1/0001", tmp_path / "wds/part-1.tar", 1.0, "drei", member="0001.wav"),
        Utterance("train-0/0001", train, 1.0, "eins", None, "train", member="0001.wav"),
        Utterance("train-0/0002", train, 1.0, "zwei", "7", "train", member="0002.WAV"),
    ]


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("a.txt", b"x")], "s.tar/a: unreadable sample: no audio .* beside a.txt"),
        ([("a.wav", b"RIFF")], "s.tar/a: unreadable sample: no text: a .txt, or a .json"),
        ([("a.wav", b""), ("a.txt", b"x")], "s.tar/a.wav: empty file: "),
        ([("a.wav", b"x"), ("a.json", b"[]")], "s.tar/a: unreadable sample: a.json is no JSON object"),
        ([("a.wav", b"x"), ("a.json", b'{"text": 3}')], "text must be a string, 3 came"),
        ([("a.wav", b"x"), ("a.txt", b"\xff")], "a.txt is not UTF-8"),
        ([], "no utterance in it"),
    ],
)
def test_samples_that_cannot_be(members, says, tmp_path):
    with pytest.raises(DataError, match=says):
        imported("webdataset", tar(tmp_path / "s.tar", members), tmp_path / "out")


def test_shards_that_are_cut_or_none(tmp_path):
    good = broken_bytes("good")[1]
    path = tar(tmp_path / "s.tar", [("a.wav", good), ("a.txt", b"x"), ("b.wav", good), ("b.txt", b"x")])
    path.write_bytes(path.read_bytes()[:-30_000])
    with pytest.raises(DataError, match=r"s.tar: truncated file: .* is no whole tar"):
        imported("webdataset", path, tmp_path / "out")
    (tmp_path / "z.tar.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(DataError, match=r"z.tar.gz: not a tar: .* is compressed"):
        imported("webdataset", tmp_path / "z.tar.gz", tmp_path / "out")


def test_shards_are_of_their_size_and_in_the_seeds_order(tones, tmp_path):
    us = read_manifest(tones)
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        load("webdataset").write(us, Target(tmp_path / name, 40_000, seed))
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files[0] == "manifest.jsonl"
    assert {f.rpartition("-")[0] for f in files[1:]} == {"train", "val", "test"}
    sizes = [(tmp_path / "a" / f).stat().st_size for f in files if f.startswith("train")]
    assert all(40_000 <= size <= 40_000 + 25_000 for size in sizes[:-1]) and len(sizes) > 3
    for f in files:
        assert (tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes()
    order = {n: [u.id for u in read_manifest(tmp_path / n / "manifest.jsonl")] for n in "ac"}
    assert order["a"] != order["c"] and sorted(order["a"]) == sorted(order["c"])
    plain = [u.id for u in us]
    assert [i for i in order["a"] if i.startswith("test")] == [i for i in plain if i.startswith("test")]
    assert [i for i in order["a"] if i.startswith("train")] != [i for i in plain if i.startswith("train")]


# What is written is whole, or not there


@pytest.mark.parametrize("format", COPYING)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_export_that_fails_leaves_nothing(format, error, tones, tmp_path, monkeypatch):
    need(format)
    us = read_manifest(tones)

    def fail(u, real=_sound.content):
        if u.id == us[-1].id:
            raise error
        return real(u)

    monkeypatch.setattr(_sound, "content", fail)
    with pytest.raises(DiskFullError if isinstance(error, OSError) else KeyboardInterrupt):
        load(format).write(us, Target(tmp_path / "out", 20_000, 0))
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_was_killed_is_cleared_away_by_the_next(tmp_path):
    child = os.fork()
    if child == 0:
        with new_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("x")
            os._exit(9)
    os.waitpid(child, 0)
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".out.writing-")
    with new_folder(tmp_path / "out"):
        assert not left.exists()


def test_of_two_exports_to_one_target_the_first_to_end_counts(tmp_path):
    def both():
        with new_folder(tmp_path / "out") as slow:
            with new_folder(tmp_path / "out") as quick:
                assert slow.exists()  # its writer lives
                (quick / "x").touch()
            yield

    with pytest.raises(DataError, match="out is there already"):
        list(both())
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "x"]


def test_embedded_audio_goes_when_the_manifest_cannot_be_written(sounds, tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    us = [Utterance("u", sounds[0], 1.0, "x")]
    load("huggingface").write(us, Target(tmp_path / "set", 1, 0))

    def full(*_):
        raise DiskFullError("full")

    monkeypatch.setattr(_gather, "write_jsonl", full)
    with pytest.raises(DiskFullError):
        imported("huggingface", tmp_path / "set", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_package_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    (tmp_path / "state.json").touch()
    with pytest.raises(AsrLabError, match=r"needs the package datasets: pip install 'asr-lab\[datasets\]'"):
        imported("huggingface", tmp_path, tmp_path / "out")


def test_splits_that_some_have():
    us = [Utterance("a", Path("x"), 1.0, "t", split="test"), Utterance("b", Path("x"), 1.0, "t")]
    assert {name: [u.id for u in group] for name, group in by_split(us).items()} == {"test": ["a"], "train": ["b"]}


# The commands


def test_import_and_export_as_commands(asr_lab, tmp_path):
    (tmp_path / "corpus").mkdir()
    write_tones(tmp_path / "corpus", (4, 2, 2))
    done = asr_lab("data", "export", "corpus", "kaldi", "data", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.splitlines()[0] == "data"
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["test", "train", "val"]
    sources = ["train=data/train", "test=data/test", "test=data/val"]
    done = asr_lab("data", "import", "kaldi", *sources, "--to", "corpus/again.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "corpus/again.jsonl"
    rows = [json.loads(line) for line in (tmp_path / "corpus/again.jsonl").read_text().splitlines()]
    assert [r["split"] for r in rows] == ["train"] * 4 + ["test"] * 4
    assert all("/" not in r["audio_filepath"] for r in rows)  # beside the manifest: relative
    done = asr_lab("data", "export", "corpus/again.jsonl", "nemo", "m.json", "--split", "test", cwd=tmp_path)
    assert done.returncode == 0
    assert len(read_manifest(tmp_path / "m.json")) == 4
    done = asr_lab("data", "import", "nemo", "m.json", "--to", "x", "--split", "dev", "--root", "corpus", cwd=tmp_path)
    assert "missing file" in only_line(done) or done.returncode == 0


def test_bad_ones_can_be_left_out(asr_lab, tmp_path):
    manifest = write_tones(tmp_path, (4, 2, 2))
    (tmp_path / "train0.wav").write_bytes(b"")
    (tmp_path / "train1.wav").unlink()
    again = ["data", "import", "nemo", str(manifest), "--to", "out"]
    line = only_line(asr_lab(*again, cwd=tmp_path))
    assert line.endswith("(and 1 more; --skip-bad lists them and leaves them out)")
    done = asr_lab(*again, "--skip-bad", cwd=tmp_path)
    assert done.returncode == 0
    assert [line.split(": ")[2] for line in done.stderr.splitlines()] == ["empty file", "missing file"]
    assert len(read_manifest(tmp_path / "out/manifest.jsonl")) == 6


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["import", "nmeo", "manifest.jsonl", "--to", "out"], "no format 'nmeo'; did you mean 'nemo'?"),
        (["import", "nemo", "manifest.jsonl", "--to", "manifest.jsonl"], "manifest.jsonl is there already"),
        (
            ["import", "table", "manifest.jsonl", "--to", "o", "--column", "txt=a"],
            "--column txt=a: FIELD=NAME is wanted",
        ),
        (["export", "manifest.jsonl", "csv", "out"], "no format 'csv'"),
        (["export", "manifest.jsonl", "table", "out"], "out must end in .csv or .tsv"),
        (["export", "manifest.jsonl", "lhotse", "out"], "out must end in .jsonl or .jsonl.gz"),
        (["export", "manifest.jsonl", "nemo", "manifest.jsonl"], "manifest.jsonl is there already"),
        (["export", "manifest.jsonl", "kaldi", "full"], "full is there already"),
        (["export", "manifest.jsonl", "kaldi", "out", "--split", "dev"], "no utterance in split 'dev'"),
        (["export", "manifest.jsonl", "webdataset", "out", "--shard-mb", "0"], "--shard-mb 0.0: a positive number"),
        (["export", "gone.jsonl", "kaldi", "out"], "gone.jsonl: cannot read the manifest"),
        (["export", "no_such_corpus", "kaldi", "out"], "data=no_such_corpus: no such choice"),
        (["export", "manifest.jsonl", "kaldi", "full/x/out"], "Not a directory|name another target"),
    ],
)
@pytest.mark.quick(3)
def test_commands_that_cannot_be(argv, says, asr_lab, tmp_path):
    write_tones(tmp_path, (4, 2, 2))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    before = sorted(tmp_path.rglob("*"))
    line = only_line(asr_lab("data", *argv, cwd=tmp_path))
    assert any(part in line for part in says.split("|")), line
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_wrong_is_not_exported(asr_lab, tmp_path):
    write_tones(tmp_path, (4, 2, 2))
    (tmp_path / "test0.wav").write_bytes((tmp_path / "test0.wav").read_bytes()[:1000])
    line = only_line(asr_lab("data", "export", ".", "webdataset", "out", cwd=tmp_path))
    assert "test0: truncated file: " in line
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not os.environ.get("ASR_LAB_DATA"), reason="ASR_LAB_DATA is not set: no corpora here")
def test_a_corpus_is_exported_by_name_with_its_splits(asr_lab, tmp_path):
    done = asr_lab("data", "export", "yesno", "table", "yesno.tsv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "yesno.tsv", newline="") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    assert {r["split"] for r in rows} == {"train", "val", "test"}
    assert len(rows) == 60
