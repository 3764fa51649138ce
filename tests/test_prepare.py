"""Public corpora: each from a small archive of its own layout, served on loopback by a server that may misbehave."""

import copy
import gzip
import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.build import check, make
from asr_lab.data import audio, download, recordings, unpack
from asr_lab.data.corpora import aishell1, an4, fsdd_strings, librispeech, speech_commands
from asr_lab.data.download import Checksum
from asr_lab.data.manifest import Utterance, read_manifest
from asr_lab.data.prepare import Given
from asr_lab.errors import ConfigError, DataError, DiskFullError
from asr_lab.paths import conf_dir
from asr_lab.run import fingerprint
from asr_lab.sweep.cell import resolved

from .conftest import composed, only_line

# A server


class Server(ThreadingHTTPServer):
    """Serves `files`; `behave[name]` is a list of what to do at the next requests, and the last for all that follow."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.behave: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str | None, int]] = []  # name, Range, bytes sent
        self.release = threading.Event()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        name, wanted = self.path.rpartition("/")[2], self.headers.get("Range")
        todo = self.server.behave.get(name, [""])
        how = todo.pop(0) if len(todo) > 1 else todo[0]
        content = self.server.files.get(name)
        if content is None or how.isdigit():
            self.server.asked.append((name, wanted, 0))
            self.send_error(int(how or 404))
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and "no ranges" not in how else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if "no length" not in how:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        sent = rest[: len(rest) // 2] if "half" in how else rest
        self.server.asked.append((name, wanted, len(sent)))
        self.wfile.write(sent)
        if "hang" in how:
            self.wfile.flush()
            self.server.release.wait(20)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSES_S", (0.0, 0.0))
    with Server() as s:
        thread = threading.Thread(target=s.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield s
        s.release.set()
        s.shutdown()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# Small archives


def tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as t:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    return out.getvalue()


def sound(seconds: float, rate: int = 16_000, kind: str = "WAV", seed: int = 0) -> bytes:
    out = io.BytesIO()
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))
    soundfile.write(out, samples, rate, format=kind, subtype="PCM_16")
    return out.getvalue()


LIBRISPEECH = ["train-clean-100", "train-clean-5", "train-clean-360", "dev-clean", "dev-clean-2", "dev-other"]
LIBRISPEECH += ["test-clean", "test-other"]


def librispeech_files(*subsets: str) -> dict[str, bytes]:
    files = {"LibriSpeech/README.TXT": b"x"}
    for subset in subsets:
        first = 19 + 2 * LIBRISPEECH.index(subset)
        for speaker in (first, first + 1):
            chapter = f"LibriSpeech/{subset}/{speaker}/198"
            files[f"{chapter}/{speaker}-198.trans.txt"] = (
                f"{speaker}-198-0000 NORTHANGER ABBEY\n{speaker}-198-0001 IT'S {subset.upper()}\n".encode()
            )
            for i in range(2):
                files[f"{chapter}/{speaker}-198-000{i}.flac"] = sound(0.3 + 0.1 * i, kind="FLAC")
    return files


def an4_files(suffix: str = "sph") -> dict[str, bytes]:
    files, names = {}, {"train": ["an251-fash-b", "cen1-fbbh-b", "cen2-mblb-b"], "test": ["an391-mjwl-b"]}
    for split, ids in names.items():
        folder = "an4_clstk" if split == "train" else "an4test_clstk"
        lines = [(f"<s> {i.upper()} </s> ({i})" if split == "train" else f"{i.upper()} ({i})") for i in ids]
        files[f"an4/etc/an4_{split}.transcription"] = "\n".join(lines).encode() + b"\n"
        files[f"an4/etc/an4_{split}.fileids"] = "".join(f"{folder}/{i.split('-')[1]}/{i}\n" for i in ids).encode()
        for i in ids:
            name = f"an4/wav/{folder}/{i.split('-')[1]}/{i}.{suffix}"
            files[name] = (
                sound(0.5, kind="NIST") if suffix == "sph" else np.arange(-4000, 4000, dtype=">i2").tobytes()
            )
    return files


SC_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "bed", "marvin")
SC_SPEAKERS = {"026290a7": "val", "0c40e715": "test", "00176480": "train", "0132a06d": "train"}


def speech_commands_files(lists: bool = True) -> dict[str, bytes]:
    files = {f"./{w}/{s}_nohash_0.wav": sound(0.2, seed=i) for i, w in enumerate(SC_WORDS) for s in SC_SPEAKERS}
    files["./_background_noise_/pink_noise.wav"] = sound(40, rate=1000)
    files["./_background_noise_/README.md"] = b"noise"
    for split, name in speech_commands.LISTS.items() if lists else ():
        chosen = [s for s, its in SC_SPEAKERS.items() if its == split]
        files[f"./{name}"] = "".join(f"{w}/{s}_nohash_0.wav\n" for w in SC_WORDS for s in chosen).encode()
    return files


def fsdd_files(speakers=("george", "jackson", "theo"), n_takes: int = 12) -> dict[str, bytes]:
    files = {"fsdd-1.0/README.md": b"x", "fsdd-1.0/recordings/notes.wav": b"no recording"}
    for number, (d, s, i) in enumerate((d, s, i) for d in range(10) for s in speakers for i in range(n_takes)):
        files[f"fsdd-1.0/recordings/{d}_{s}_{i}.wav"] = sound(0.02, 8000, seed=number)
    return files


def yesno_files() -> dict[str, bytes]:
    names = [f"{n:06b}" for n in range(40)]
    files = {f"waves_yesno/{'_'.join(n)}.wav": sound(0.6, 8000) for n in names}
    return files | {"waves_yesno/README": b"x", "waves_yesno/README~": b"x"}


def aishell1_files() -> dict[str, bytes]:
    texts = {"S0002W0122": "而 对 楼市", "S0724W0121": "广州 市", "S0764W0121": "甚至 出现"}
    files = {
        "data_aishell/transcript/aishell_transcript_v0.8.txt": "".join(
            f"BAC009{i} {t}\n" for i, t in texts.items()
        ).encode()
    }
    for (i, _), split in zip(texts.items(), ("train", "dev", "test"), strict=True):
        wavs = {f"{split}/{i[:5]}/BAC009{i}.wav": sound(0.4), f"{split}/{i[:5]}/BAC009{i[:5]}W0999.wav": sound(0.3)}
        files[f"data_aishell/wav/{i[:5]}.tar.gz"] = tar(wavs)
    return files


LAYOUTS: dict[str, Callable[[], dict[str, dict[str, bytes]]]] = {
    "an4": lambda: {"an4_sphere.tar.gz": an4_files()},
    "fsdd": lambda: {"v1.0.10.tar.gz": fsdd_files()},
    "yesno": lambda: {"waves_yesno.tar.gz": yesno_files()},
    "mini_librispeech": lambda: {f"{s}.tar.gz": librispeech_files(s) for s in ("train-clean-5", "dev-clean-2")},
    "librispeech_100": lambda: {
        f"{s}.tar.gz": librispeech_files(s)
        for s in ("train-clean-100", "dev-clean", "dev-other", "test-clean", "test-other")
    },
    "speech_commands": lambda: {"speech_commands_v0.02.tar.gz": speech_commands_files()},
    "speech_commands_12": lambda: {"speech_commands_v0.02.tar.gz": speech_commands_files()},
    "aishell1": lambda: {"data_aishell.tgz": aishell1_files()},
}
WHAT_IS_THERE = {
    "an4": {"train": 2, "val": 1, "test": 1},
    "fsdd": {"train": 189, "val": 21, "test": 150},
    "yesno": {"train": 27, "val": 4, "test": 9},
    "mini_librispeech": {"train": 2, "val": 2, "test": 4},
    "librispeech_100": {"train": 4, "val": 4, "test": 4, "dev_other": 4, "test_other": 4},
    "speech_commands": {"train": 24, "val": 12, "test": 12},
    "speech_commands_12": {"train": 24, "val": 12, "test": 12},  # 20 + 2 + 2, 10 + 1 + 1
    "aishell1": {"train": 1, "val": 1, "test": 1},
}
FIRST = {  # the first line of each manifest
    "an4": ("an251-fash-b", "AN251-FASH-B", "fash", 0.5, 16_000),
    "fsdd": ("0_george_0", "zero", "george", 0.02, 8000),
    "yesno": ("0_0_0_0_0_0", "no no no no no no", "yesno_m1", 0.6, 8000),
    "mini_librispeech": ("21-198-0000", "NORTHANGER ABBEY", "21", 0.3, 16_000),
    "librispeech_100": ("19-198-0000", "NORTHANGER ABBEY", "19", 0.3, 16_000),
    "speech_commands": ("bed/00176480_nohash_0", "bed", "00176480", 0.2, 16_000),
    "speech_commands_12": ("down/00176480_nohash_0", "down", "00176480", 0.2, 16_000),
    "aishell1": ("BAC009S0002W0122", "而对楼市", "S0002", 0.4, 16_000),
}


@cache
def composed_once(name: str) -> dict:
    return resolved(composed(f"data={name}"))


def config_of(name: str, server: Server | None = None) -> dict:
    """The composed configuration of a corpus, its URLs those of the server, its checksums those of what is served."""
    config = copy.deepcopy(composed_once(name))
    if server:
        for archive in config["data"]["prepare"]["archives"]:
            served = server.files[archive["url"].rpartition("/")[2]]
            archive["url"] = server.url(archive["url"].rpartition("/")[2])
            known = {"size": len(served), "sha256": sha256(served), "md5": hashlib.md5(served).hexdigest()}
            archive.update({key: known[key] for key in known.keys() & archive.keys()})
    return config


def prepare(config: dict, root: Path, *sources: Path, n_workers: int = 1) -> Path:
    data = config["data"]
    check({"data": data})
    given = Given(data["name"], root, data["manifest"], sources, n_workers)
    return make({"prepare": data["prepare"]}, "prepare")(given)


def served(server: Server, name: str) -> dict:
    server.files.update({file: tar(content) for file, content in LAYOUTS[name]().items()})
    return config_of(name, server)


def rows_of(manifest: Path) -> list[dict]:
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def unpacked_by_hand(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


# Every corpus


@pytest.mark.parametrize("name", LAYOUTS)
def test_corpus_is_fetched_unpacked_and_described(name, server, tmp_path, monkeypatch):
    config = served(server, name)
    manifest = prepare(config, tmp_path)
    assert manifest == tmp_path / name / "manifest.jsonl"
    first = rows_of(manifest)[0]
    assert (first["id"], first["text"], first["speaker"], first["duration"], first["sample_rate"]) == FIRST[name]
    config["data"]["root"] = str(tmp_path)
    corpus = make(config, "data")
    assert {split: len(us) for split, us in corpus.splits.items()} == WHAT_IS_THERE[name]
    assert corpus.sample_rate == first["sample_rate"]
    for u in corpus.splits["train"]:
        audio.read(u.audio, None, u.offset, u.duration)
    left = [p for p in tmp_path.rglob("*") if p.suffix in (".gz", ".tgz", ".part") or ".building" in p.name]
    assert left == []
    asked = len(server.asked)
    before = manifest.stat().st_mtime_ns
    assert prepare(config, tmp_path) == manifest
    assert len(server.asked) == asked == len(server.files)
    assert manifest.stat().st_mtime_ns == before


def test_every_corpus_that_can_be_prepared_is_tested_here():
    from .conftest import choices

    folder = conf_dir() / "data"
    prepared = {name for name in choices("data") if "\nprepare:\n" in (folder / f"{name}.yaml").read_text()}
    assert prepared == {*LAYOUTS, "librispeech_460", "librispeech_960"}


def test_larger_librispeech_fetches_only_what_is_new(server, tmp_path):
    prepare(served(server, "librispeech_100"), tmp_path)
    server.files["train-clean-360.tar.gz"] = tar(librispeech_files("train-clean-360"))
    server.asked.clear()
    rows = rows_of(prepare(config_of("librispeech_460", server), tmp_path))
    assert [name for name, *_ in server.asked] == ["train-clean-360.tar.gz"]
    assert sum(row["split"] == "train" for row in rows) == 8
    assert rows[0]["audio_filepath"].startswith("../librispeech/unpacked/train-clean-100/LibriSpeech/")


def test_headerless_an4_is_written_as_flac(tmp_path):
    folder = unpacked_by_hand(an4_files("raw"), tmp_path / "download")
    manifest = prepare(config_of("an4"), tmp_path / "data", folder / "an4")
    rows = rows_of(manifest)
    assert rows[0]["audio_filepath"] == "audio/an251-fash-b.flac"
    samples, rate = audio.read(manifest.parent / rows[0]["audio_filepath"])
    assert (rate, rows[0]["duration"]) == (16_000, 0.5)
    np.testing.assert_array_equal(np.round(samples * 32768), np.arange(-4000, 4000))


def test_an4_lines_of_both_splits_are_read():
    lines = {"<s> ENTER TWO </s> (an1-a-b)": "ENTER TWO", "ENTER TWO (an1-a-b)": "ENTER TWO", "(an1-a-b)": ""}
    for line, text in lines.items():
        match = an4._LINE.fullmatch(line)
        assert match and (match["text"], match["id"]) == (text, "an1-a-b")


def test_speech_commands_hash_rule_is_the_official_one():
    """Names of the corpus' own validation_list.txt and testing_list.txt."""
    for name in ("026290a7", "060cd039", "099d52ad"):
        assert speech_commands.which_set(f"{name}_nohash_0.wav") == "val"
    for name in ("0c40e715", "0ea0e2f4"):
        assert speech_commands.which_set(f"{name}_nohash_3.wav") == "test"
    shares = [speech_commands.which_set(f"{n:08x}_nohash_0.wav") for n in range(4000)]
    assert shares.count("val") == pytest.approx(400, abs=80) and shares.count("test") == pytest.approx(400, abs=80)


def test_speech_commands_without_lists_are_split_by_the_hash(tmp_path):
    folder = unpacked_by_hand(speech_commands_files(lists=False), tmp_path)
    splits = {r.speaker: r.split for r in speech_commands.recordings([folder])}
    assert splits == SC_SPEAKERS


def test_silence_is_cut_from_a_part_of_its_own_and_unknown_words_are_seeded(tmp_path):
    folder = unpacked_by_hand(speech_commands_files(), tmp_path)

    def go(seed=0, **changes):
        values = {"words": list(SC_WORDS[:10]), "unknown_share": 0.1, "silence_share": 0.5, "silence_s": 1.0}
        return speech_commands.recordings_12([folder], **{**values, **changes}, seed=seed)

    found = go()
    spans = {"train": (0, 32), "val": (32, 36), "test": (36, 40)}
    for r in (r for r in found if r.text == "silence"):
        first, last = spans[r.split]
        assert r.duration == 1.0 and first <= r.offset <= last - 1.0
    assert len({(r.split, r.offset) for r in found if r.text == "silence"}) > 10
    assert {r.text for r in found} == {*SC_WORDS[:10], "unknown", "silence"}
    assert {r.audio.parent.name for r in found if r.text == "unknown"} <= {"bed", "marvin"}
    assert go() == found
    assert go(seed=1) != found
    assert {r.text for r in go(unknown_share=0.0, silence_share=0.0)} == set(SC_WORDS[:10])
    with pytest.raises(DataError, match="has no recordings of maybe"):
        go(words=["yes", "maybe"])
    with pytest.raises(DataError, match="no noise file long enough"):
        go(silence_s=60.0)


# Folders and archives that a person has


@pytest.mark.parametrize("inner", ["", "LibriSpeech", "LibriSpeech/train-clean-5"])
def test_outer_and_inner_folders_are_understood(inner, tmp_path):
    both = {**librispeech_files("train-clean-5"), **librispeech_files("dev-clean-2")}
    folder = unpacked_by_hand(both, tmp_path / "have")
    sources = [folder / inner] + ([folder / "LibriSpeech/dev-clean-2"] if "train" in inner else [])
    manifest = prepare(config_of("mini_librispeech"), tmp_path / "data", *sources)
    assert len(rows_of(manifest)) == 8
    assert all(u.audio.is_relative_to(folder) and u.audio.is_file() for u in read_manifest(manifest))


def test_archives_of_a_folder_are_found_and_the_users_files_stay(server, tmp_path):
    config = served(server, "mini_librispeech")
    have = tmp_path / "have"
    have.mkdir()
    for name, content in server.files.items():
        (have / name).write_bytes(content)
    manifest = prepare(config, tmp_path / "data", have)
    assert len(rows_of(manifest)) == 8
    assert sorted(p.name for p in have.iterdir()) == sorted(server.files)
    assert server.asked == []


def test_a_folder_with_a_manifest_keeps_its_lines(tones, tmp_path):
    manifest = prepare(config_of("an4"), tmp_path, tones.parent)
    there, here = read_manifest(tones), read_manifest(manifest)
    assert [(u.audio, u.text, u.split, u.speaker) for u in here] == [(u.audio, u.text, u.split, u.speaker) for u in there]


def test_a_zip_of_the_repository_will_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "free-spoken-digit-dataset-master.zip", "w") as z:
        for name, content in fsdd_files().items():
            z.writestr(name, content)
    manifest = prepare(config_of("fsdd"), tmp_path / "data", tmp_path / "free-spoken-digit-dataset-master.zip")
    assert len(rows_of(manifest)) == 360


def test_part_of_a_corpus_is_not_a_corpus(server, tmp_path):
    config = served(server, "mini_librispeech")
    (tmp_path / "train-clean-5.tar.gz").write_bytes(server.files["train-clean-5.tar.gz"])
    with pytest.raises(DataError, match=r"no transcripts of dev-clean-2 .*give dev-clean-2.tar.gz too"):
        prepare(config, tmp_path / "data", tmp_path / "train-clean-5.tar.gz")
    assert not (tmp_path / "data/mini_librispeech/manifest.jsonl").exists()
    prepare(config, tmp_path / "data")  # the other one is fetched
    assert [name for name, *_ in server.asked] == ["dev-clean-2.tar.gz"]


def wrong_layouts():
    yield "an4", {"some/other.txt": b"x"}, "no etc/an4_train.fileids in it, so it is not AN4"
    yield "an4", {k: v for k, v in an4_files().items() if "cen1" not in k}, "missing file: .*cen1-fbbh-b.sph"
    yield "an4", {**an4_files(), "an4/etc/an4_train.transcription": b"HI (x)\n"}, "has no text of an251-fash-b"
    yield "an4", {**an4_files(), "an4/etc/an4_train.fileids": b"\xff\xfe"}, "an4_train.fileids: not UTF-8"
    yield "an4", {**an4_files(), "an4/wav/an4_clstk/fash/an251-fash-b.sph": b""}, "empty file: .*an251-fash-b.sph"
    cut = an4_files("raw") | {"an4/wav/an4_clstk/fash/an251-fash-b.raw": b"abc"}
    yield "an4", cut, "truncated file: .*an251-fash-b.raw has 3 bytes"
    yield "fsdd", {"recordings/hello.wav": b"x"}, "no file like recordings/7_jackson_32.wav"
    yield "yesno", {"waves_yesno/0_1.wav": sound(0.1)}, "has 1 recordings like .* more than 31 are wanted"
    yield "speech_commands", {"yes/00176480_nohash_0.wav": b"x"}, "no _background_noise_ in it"
    few = {k: v for k, v in speech_commands_files().items() if "0c40e715" not in k}
    yield "speech_commands", few, "no recordings of the split test"
    yield "aishell1", aishell1_files(), "S0002.tar.gz: a speaker that is still packed"
    silent = {k: v for k, v in aishell1_files().items() if "wav" not in k}
    yield "aishell1", silent, "no recording with a transcript"
    lost = librispeech_files("train-clean-5", "dev-clean-2")
    lost = {k: v for k, v in lost.items() if not k.endswith("21-198-0001.flac")}
    yield "mini_librispeech", lost, "missing file: .*21-198-0001.flac"


@pytest.mark.parametrize(("name", "files", "says"), wrong_layouts())
def test_incomplete_folders_are_refused_in_one_line(name, files, says, tmp_path):
    folder = unpacked_by_hand(files, tmp_path / "have")
    with pytest.raises(DataError, match=says) as caught:
        prepare(config_of(name), tmp_path / "data", folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data" / name / "manifest.jsonl").exists()


def test_what_is_given_twice_is_refused(tmp_path):
    places = [unpacked_by_hand(yesno_files(), tmp_path / name) for name in "ab"]
    with pytest.raises(DataError, match="40 recordings come twice, such as 0_0_0_0_0_0"):
        prepare(config_of("yesno"), tmp_path / "data", *places)


def test_a_wrong_archive_is_forgotten(tmp_path):
    archive = tmp_path / "v1.0.10.tar.gz"
    archive.write_bytes(tar({"a/b.txt": b"x"}))
    with pytest.raises(DataError, match="fetch FSDD again"):
        prepare(config_of("fsdd"), tmp_path / "data", archive)
    archive.write_bytes(tar(fsdd_files()))
    assert len(rows_of(prepare(config_of("fsdd"), tmp_path / "data", archive))) == 360


def test_a_given_archive_must_be_the_published_one(server, tmp_path):
    config = served(server, "yesno")
    file = tmp_path / "waves_yesno.tar.gz"
    file.write_bytes(tar({**yesno_files(), "waves_yesno/more.txt": b"x"}))
    with pytest.raises(DataError, match=r"wrong file: its sha256 is .*rename it to use it nevertheless"):
        prepare(config, tmp_path / "data", file)
    assert file.exists()
    renamed = file.rename(tmp_path / "mine.tar.gz")
    assert len(rows_of(prepare(config, tmp_path / "data", renamed))) == 40
    with pytest.raises(DataError, match=r"--from .*nowhere.zip: is not there"):
        prepare(config, tmp_path / "elsewhere", tmp_path / "nowhere.zip")
