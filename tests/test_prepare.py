"""Public corpora: each from a small archive of its own layout, served on loopback by a server that may misbehave."""

import copy
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from functools import cache
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
from asr_lab.data.corpora import aishell1, an4, fsdd_strings, speech_commands
from asr_lab.data.corpus import corpora_dirs, locate
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
    monkeypatch.setattr(download, "PAUSES_S", (0.0, 0.0, 0.0))
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
            files[name] = sound(0.5, kind="NIST") if suffix == "sph" else np.arange(-4000, 4000, dtype=">i2").tobytes()
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


def fsdd_files(speakers=("george", "jackson", "theo"), n_takes: int = 8) -> dict[str, bytes]:
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
    "fsdd": {"train": 81, "val": 9, "test": 150},
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
@pytest.mark.quick(3)
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
    assert [(u.audio, u.text, u.split, u.speaker) for u in here] == [
        (u.audio, u.text, u.split, u.speaker) for u in there
    ]


def test_a_zip_of_the_repository_will_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "free-spoken-digit-dataset-master.zip", "w") as z:
        for name, content in fsdd_files().items():
            z.writestr(name, content)
    manifest = prepare(config_of("fsdd"), tmp_path / "data", tmp_path / "free-spoken-digit-dataset-master.zip")
    assert len(rows_of(manifest)) == 240


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
    assert len(rows_of(prepare(config_of("fsdd"), tmp_path / "data", archive))) == 240


def test_an_error_page_instead_of_an_archive_is_forgotten(server, tmp_path):
    config = served(server, "fsdd")
    good, server.files["v1.0.10.tar.gz"] = server.files["v1.0.10.tar.gz"], b"<html>sorry</html>"
    with pytest.raises(DataError, match="not a tar or zip archive"):
        prepare(config, tmp_path)
    server.files["v1.0.10.tar.gz"] = good
    assert len(rows_of(prepare(config, tmp_path))) == 240


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


# Servers that misbehave

CONTENT = np.random.default_rng(0).bytes(300_000)
GET = {"size": None, "checksum": None, "advice": "or --from"}
KNOWN = {"size": len(CONTENT), "checksum": Checksum("sha256", sha256(CONTENT)), "advice": "or --from"}


def fetch(server: Server, folder: Path, *behave: str, **values) -> Path:
    server.files.setdefault("x.tar", CONTENT)
    server.behave["x.tar"] = list(behave) or [""]
    return download.download(server.url("x.tar"), folder / "x.tar", **{**KNOWN, **values})


@pytest.mark.parametrize("known", [KNOWN, GET, {**GET, "size": len(CONTENT)}], ids=["known", "unknown", "size"])
@pytest.mark.parametrize(
    "behave", [[""], ["no length"], ["half", ""], ["503", "half", "500", ""], ["half no ranges", ""]]
)
def test_the_file_arrives(behave, known, server, tmp_path):
    assert fetch(server, tmp_path, *behave, **known).read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["x.tar"]


def test_a_break_is_resumed_and_nothing_is_sent_twice(server, tmp_path):
    fetch(server, tmp_path, "half", "half", "half", "half", "half", "")  # each gets further: patience starts anew
    assert [wanted for _, wanted, _ in server.asked[:3]] == [None, "bytes=150000-", "bytes=225000-"]
    assert sum(sent for *_, sent in server.asked) == len(CONTENT)


def test_what_has_come_serves_the_next_call(server, tmp_path):
    (tmp_path / "x.tar.part").write_bytes(CONTENT[:1000])
    fetch(server, tmp_path)
    assert server.asked == [("x.tar", "bytes=1000-", len(CONTENT) - 1000)]


def test_a_whole_part_needs_no_more(server, tmp_path):
    for checksum in (KNOWN, {**KNOWN, "size": None}):
        (tmp_path / "x.tar.part").write_bytes(CONTENT)
        assert fetch(server, tmp_path, **checksum).read_bytes() == CONTENT
    assert server.asked == []  # 416 is no delivery


def test_without_size_and_checksum_nothing_is_joined(server, tmp_path):
    (tmp_path / "x.tar.part").write_bytes(b"of another version")
    assert fetch(server, tmp_path, **GET).read_bytes() == CONTENT
    assert server.asked[0][1] is None


def test_a_wrongly_joined_file_is_removed_and_comes_whole_the_next_time(server, tmp_path):
    (tmp_path / "x.tar.part").write_bytes(b"z" * 1000)
    with pytest.raises(DataError, match=r"wrong file: its sha256 is .* is published; it was removed; run again, or"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert fetch(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("behave", "served", "says"),
    [
        ("404", CONTENT, r"x.tar: the server answers 404 \(Not Found\); or --from"),
        ("403", CONTENT, r"the server answers 403 \(Forbidden\)"),
        ("503", CONTENT, r"the server answers 503 \(Service Unavailable\); or --from"),
        ("", CONTENT[:-1] + b"z", "wrong file: its sha256 is"),
        ("", b"<html>", r"wrong file: 6 bytes are offered, 300000 are published"),
        ("no length", CONTENT + b"z", r"wrong file: more than the 300000 published bytes come"),
        (
            "half no ranges",
            CONTENT,
            r"broke off after 150000 of 300000 bytes \(x.tar.part is kept: the next call goes on",
        ),
    ],
)
def test_servers_that_do_not_help(behave, served, says, server, tmp_path):
    server.files["x.tar"] = served
    with pytest.raises(DataError, match=says) as caught:
        fetch(server, tmp_path, behave)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.tar").exists()


def test_nobody_answers(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSES_S", (0.0,))
    with pytest.raises(DataError, match=r"cannot be reached \(.*refused.*\); or --from"):
        download.download("http://127.0.0.1:1/x.tar", tmp_path / "x.tar", **KNOWN)
    monkeypatch.setattr(download, "TIMEOUT_S", 0.05)
    with pytest.raises(DataError, match=r"cannot be reached .*timed out"):
        fetch(server, tmp_path, "half hang no ranges")


def test_a_full_disk_is_said_before(server, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 100_000))
    with pytest.raises(DiskFullError, match="MB are free"):
        fetch(server, tmp_path)
    with pytest.raises(DiskFullError, match=r"0.0 GB are free, up to 0.0 are needed; free some, or choose"):
        prepare(served(server, "yesno"), tmp_path / "data")
    assert all(sent < len(CONTENT) or name == "x.tar" for name, _, sent in server.asked)


# Archives that misbehave


def member(name: str, **changes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def tar_of(*infos: tarfile.TarInfo, mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as t:
        for info in (member("good.txt", size=4), *infos):
            t.addfile(info, io.BytesIO(b"good" if info.name == "good.txt" else bytes(info.size)))
    return out.getvalue()


def zip_of(name: str, content: bytes = b"x", mode: int = 0o644, declared: int | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("good.txt", "good")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        z.writestr(info, content)
    whole = out.getvalue()
    if declared is None:
        return whole
    lying = len(content).to_bytes(4, "little")
    return whole.replace(lying, declared.to_bytes(4, "little"))


def encrypted() -> bytes:
    whole = bytearray(zip_of("secret.txt"))
    at = whole.rindex(b"PK\x01\x02")
    whole[at + 8] |= 1
    return bytes(whole)


MB = 1_000_000
BAD = {
    "absolute": (tar_of(member("/etc/passwd_", size=1)), "absolute path in it: '/etc/passwd_'"),
    "parent": (tar_of(member("../escaped", size=1)), r"path with `..` in it: '../escaped'"),
    "inner parent": (tar_of(member("a/../../escaped", size=1)), r"path with `..` in it"),
    "folder outside": (tar_of(member("../escaped", type=tarfile.DIRTYPE)), r"path with `..` in it"),
    "symlink": (tar_of(member("l", type=tarfile.SYMTYPE, linkname="/etc")), "link in it: 'l'"),
    "hard link": (tar_of(member("l", type=tarfile.LNKTYPE, linkname="good.txt")), "link in it: 'l'"),
    "device": (tar_of(member("d", type=tarfile.CHRTYPE)), "device in it: 'd'"),
    "pipe": (tar_of(member("p", type=tarfile.FIFOTYPE)), "device in it: 'p'"),
    "file and folder": (tar_of(member("good.txt/x", size=1)), "damaged archive"),
    "bomb": (tar_of(member("b", size=5 * MB), mode="w:gz"), "unpacks to more than 1 MB"),
    "many small": (
        tar_of(*[member(f"b{i}", size=MB // 3) for i in range(4)], mode="w:xz"),
        "unpacks to more than 1 MB",
    ),
    "bomb behind": (gzip.compress(tar_of() + bytes(5 * MB)), "unpacks to more than 1 MB"),
    "long header": (tar_of(member("x", type=tarfile.XHDTYPE, size=2 * MB), mode="w:gz"), "a header of 2000000 bytes"),
    "zip absolute": (zip_of("/etc/passwd_"), "absolute path in it"),
    "zip parent": (zip_of("../escaped"), r"path with `..` in it"),
    "zip link": (zip_of("l", b"/etc", stat.S_IFLNK | 0o777), "link in it"),
    "zip bomb": (zip_of("b", bytes(5 * MB)), "unpacks to more than 1 MB"),
    "zip that lies": (zip_of("b", bytes(5 * MB), declared=10), "damaged or cut archive"),
    "zip encrypted": (encrypted(), "encrypted file in it: 'secret.txt'"),
    "no archive": (b"<html>404</html>" * 100, "not a tar or zip archive"),
    "empty": (b"", "not a tar or zip archive"),
    "gzip of text": (gzip.compress(b"hello" * 1000), "damaged or cut archive"),
    "cut zip": (zip_of("b", CONTENT)[:200_000], "not a tar or zip archive"),
}


@pytest.mark.parametrize("kind", BAD)
def test_archives_that_are_refused(kind, tmp_path):
    content, says = BAD[kind]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        unpack.unpack(tmp_path / "in/x.tar.gz", tmp_path / "in/to", MB)
    assert str(tmp_path / "in/x.tar.gz") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "x.tar.gz"]  # nothing unpacked, nothing escaped
    assert not Path("/etc/passwd_").exists()


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "MAX_MEMBERS", 3)
    (tmp_path / "x.tar").write_bytes(tar_of(*[member(f"e{i}") for i in range(3)]))
    with pytest.raises(DataError, match="or 3 files"):
        unpack.unpack(tmp_path / "x.tar", tmp_path / "to", MB)


MANY = {f"folder/{i}.bin": np.random.default_rng(i).bytes(700) for i in range(8)}
PACKED = {mode: tar(MANY, mode) for mode in ("w:gz", "w:bz2", "w:xz")}
PACKED["w"] = tar(MANY, "w")[: 8 * (512 + 1024) + 512]  # up to the mark of its end, behind which it may be cut


@given(st.sampled_from(sorted(PACKED)), st.floats(0.0, 0.999))
@settings(max_examples=40, deadline=None)
def test_an_archive_cut_anywhere_is_never_taken_for_a_whole_one(mode, share):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        archive, target = Path(folder, "a"), Path(folder, "to")
        archive.write_bytes(PACKED[mode][: int(share * len(PACKED[mode]))])
        with pytest.raises(DataError, match=r"cut|damaged|not a tar"):
            unpack.unpack(archive, target, MB)
        assert not target.exists()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_what_was_packed_is_unpacked_whatever_the_name(mode, tmp_path):
    content = PACKED.get(mode) or (tar(MANY, mode) if mode != "zip" else zip_of("folder/0.bin", MANY["folder/0.bin"]))
    (tmp_path / "archive.zip").write_bytes(content)
    to = unpack.unpack(tmp_path / "archive.zip", tmp_path / "to", MB)
    wanted = MANY if mode != "zip" else {"folder/0.bin": MANY["folder/0.bin"], "good.txt": b"good"}
    assert {p.relative_to(to).as_posix(): p.read_bytes() for p in to.rglob("*") if p.is_file()} == wanted


def test_stems():
    names = {"a.tar.gz": "a", "v1.0.10.tar.gz": "v1.0.10", "data_aishell.tgz": "data_aishell", "b.zip": "b", "c": "c"}
    assert {name: unpack.stem(name) for name in names} == names


# One builder at a time, and builders that die


def test_two_at_once_fetch_once(server, tmp_path):
    config = served(server, "yesno")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(prepare(config, tmp_path))) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 3 and len(set(found)) == 1
    assert len(server.asked) == 1


def test_a_killed_prepare_leaves_nothing_that_counts_and_the_next_goes_on(server, tmp_path):
    config = served(server, "yesno")
    server.behave["waves_yesno.tar.gz"] = ["half hang", ""]
    archives = config["data"]["prepare"]["archives"]
    code = (
        "from functools import partial\nfrom pathlib import Path\n"
        "from asr_lab.data.corpora.yesno import recordings\nfrom asr_lab.data.prepare import Given, prepare\n"
        f"given = Given('yesno', Path({str(tmp_path)!r}), 'yesno/manifest.jsonl')\n"
        f"prepare(given, 'yesno', {archives!r}, partial(recordings, n_train=31))"
    )
    part = tmp_path / "yesno" / "waves_yesno.tar.gz.part"
    half = len(server.files["waves_yesno.tar.gz"]) // 2
    child = subprocess.Popen([sys.executable, "-c", code])
    while not (server.asked and part.exists()):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    server.release.set()
    assert not (tmp_path / "yesno/manifest.jsonl").exists()
    kept = part.stat().st_size
    assert kept <= half
    assert len(rows_of(prepare(config, tmp_path))) == 40
    assert server.asked[-1][1] == (f"bytes={kept}-" if kept else None)


def test_a_killed_unpacking_is_swept_away(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar(MANY, "w"))
    stale = tmp_path / ".to.building-0123abcd"
    (stale / "folder").mkdir(parents=True)
    unpack.unpack(tmp_path / "a.tar", tmp_path / "to", MB)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "to"]


def test_a_root_that_cannot_be_written(server, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataError, match=r"data.*(exists|directory); choose another folder with --to or ASR_LAB_DATA"):
        prepare(served(server, "yesno"), tmp_path / "data")


def test_processes_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "PROBED_AT_ONCE", 15)
    folder = unpacked_by_hand(yesno_files(), tmp_path / "have")
    one = prepare(config_of("yesno"), tmp_path / "one", folder, n_workers=1)
    two = prepare(config_of("yesno"), tmp_path / "two", folder, n_workers=2)
    assert one.read_text() == two.read_text()
    (folder / "waves_yesno/1_0_0_0_0_0.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty file: .*1_0_0_0_0_0.wav has 0 bytes"):  # out of another process
        prepare(config_of("yesno"), tmp_path / "three", folder, n_workers=2)


def test_packed_speakers_are_unpacked_by_processes_too(server, tmp_path):
    manifest = prepare(served(server, "aishell1"), tmp_path, n_workers=2)
    assert len(rows_of(manifest)) == 3
    assert not list(tmp_path.rglob("*.tar.gz"))


def test_aishell_counts_what_has_no_transcript(tmp_path, caplog):
    folder = tmp_path / "have"
    archive = tmp_path / "data_aishell.tgz"
    archive.write_bytes(tar(aishell1_files()))
    unpack.unpack(archive, folder, 10 * MB, inner="*/wav/*.tar.gz")
    assert len(aishell1.recordings([folder])) == 3
    assert "3 recordings without transcript are left out" in caplog.text


# Digit strings

STRINGS = {
    "n_train": 12,
    "n_val": 6,
    "n_test": 8,
    "n_digits": [3, 7],
    "pause_ms": [50, 300],
    "noise_db": -60.0,
    "speaker_disjoint": False,
    "n_val_takes": 3,
    "seed": 0,
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> list[Utterance]:
    folder = unpacked_by_hand(fsdd_files(n_takes=12), tmp_path_factory.mktemp("fsdd"))
    return read_manifest(prepare(config_of("fsdd"), folder / "data", folder))


def strings(digits: list[Utterance], folder: Path | None = None, n_workers: int = 1, **changes):
    """The plan, or with a folder the manifest."""
    values = fsdd_strings.Strings(**{**STRINGS, **changes})
    if folder is None:
        return fsdd_strings.recordings(digits, values)
    return fsdd_strings.make(folder, digits, values, n_workers, progress=False)


def used(found, split: str) -> set[Path]:
    return {file for r in found if r.split == split for file in r.render.args[0]}


@pytest.mark.parametrize("disjoint", [False, True])
def test_strings_are_of_one_speaker_and_of_recordings_that_their_split_may_use(digits, disjoint):
    found = strings(digits, n_train=300, n_val=100, n_test=100, speaker_disjoint=disjoint)
    whose = {u.audio: u for u in digits}
    for r in found:
        files, pauses, *_ = r.render.args
        assert {whose[f].speaker for f in files} == {r.speaker}
        assert " ".join(whose[f].text for f in files) == r.text
        assert 3 <= len(files) <= 7
        assert len(pauses) == len(files) + 1 and all(50 <= p <= 300 for p in pauses)
    assert {whose[f].split for f in used(found, "test")} == {"test"}
    assert {whose[f].split for f in used(found, "train") | used(found, "val")} == {"train"}
    assert not used(found, "train") & used(found, "val")
    speakers = {s: {r.speaker for r in found if r.split == s} for s in ("train", "val", "test")}
    if disjoint:
        assert [len(speakers[s]) for s in speakers] == [1, 1, 1] and len(set().union(*speakers.values())) == 3
    else:
        assert all(its == {"george", "jackson", "theo"} for its in speakers.values())
    assert {len(r.text.split()) for r in found} == {3, 4, 5, 6, 7}


def test_strings_follow_from_their_seed_and_more_change_none(digits):
    found = strings(digits)
    assert [r.render.args for r in strings(digits)] == [r.render.args for r in found]
    more = [r for r in strings(digits, n_train=20) if r.split == "train"]
    assert [r.text for r in more[:12]] == [r.text for r in found[:12]]
    assert [r.text for r in strings(digits, seed=1)] != [r.text for r in found]


def test_a_rendered_string_is_its_recordings_and_pauses(digits):
    a, b = digits[0].audio, digits[1].audio
    samples, rate = fsdd_strings.render((a, b), (50, 100, 200), -60.0, 7)
    one, two = audio.read(a)[0], audio.read(b)[0]
    assert rate == 8000
    assert len(samples) == 400 + len(one) + 800 + len(two) + 1600
    quiet = np.concatenate([samples[:400], samples[400 + len(one) :][:800], samples[-1600:]])
    assert 20 * np.log10(quiet.std()) == pytest.approx(-60, abs=0.5)
    assert np.abs(samples[400:][: len(one)] - one).max() < 0.006


def test_the_corpus_of_strings_is_made_once_and_alike_by_processes(digits, tmp_path, monkeypatch):
    one = strings(digits, tmp_path / "one")
    monkeypatch.setattr(recordings, "WRITTEN_AT_ONCE", 13)
    two = strings(digits, tmp_path / "two", n_workers=2)
    assert one.read_text() == two.read_text()
    for row in rows_of(one):
        file = row["audio_filepath"]
        assert (one.parent / file).read_bytes() == (two.parent / file).read_bytes()
    assert strings(digits, tmp_path / "one") == one
    assert strings(digits, tmp_path / "one", seed=1).parent != one.parent
    assert sorted({row["split"] for row in rows_of(one)}) == ["test", "train", "val"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_digits": [7, 3]}, "n_digits is two numbers"),
        ({"n_digits": [0, 3]}, "n_digits is two numbers"),
        ({"pause_ms": [-1, 3]}, "pause_ms is two numbers"),
        ({"n_train": 0}, "n_train must be positive"),
        ({"n_val_takes": 7}, "no recordings for train of george: zero and 29 more"),
    ],
)
def test_strings_that_cannot_be(changes, says, digits, tmp_path):
    with pytest.raises(DataError, match=says):
        strings(digits, tmp_path, **changes)
    assert not list(tmp_path.rglob("manifest.jsonl"))


# The command, and what a run sees of all this


@pytest.fixture
def offline(server, monkeypatch):
    """Every URL leads to the server on loopback."""
    monkeypatch.setattr(
        download,
        "urlopen",
        lambda r, timeout: urlopen(
            Request(server.url(r.full_url.rpartition("/")[2]), headers=r.headers), timeout=timeout
        ),
    )
    return server


def test_the_command_fetches_and_says_what_there_is(asr_lab, offline, tmp_path):
    offline.files["v1.0.10.tar.gz"] = tar(fsdd_files())
    there = {"ASR_LAB_DATA": str(tmp_path / "data")}
    done = asr_lab("data", "prepare", "fsdd", "--workers", "1", cwd=tmp_path, **there)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(tmp_path / "data/fsdd/manifest.jsonl")
    assert "test           150 utterances" in done.stdout
    again = asr_lab("data", "prepare", "fsdd", cwd=tmp_path, **there)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "fsdd is there already" in again.stderr
    assert len(offline.asked) == 1


def test_strings_are_made_at_their_first_use(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("ASR_LAB_DATA", str(digits[0].audio.parents[2] / "data"))
    monkeypatch.setenv("ASR_LAB_CACHE", str(tmp_path))
    small = ["data.strings.n_train=5", "data.strings.n_val=3", "data.strings.n_test=4"]
    corpus = make(resolved(composed("data=fsdd_strings", *small)), "data")
    assert corpus.manifest.parents[1] == tmp_path / "fsdd_strings"
    assert [len(us) for us in corpus.splits.values()] == [5, 3, 4]
    corpus.check_audio()


@pytest.mark.slow
def test_the_command_says_one_line(asr_lab, offline, tmp_path):
    here = {"ASR_LAB_DATA": str(tmp_path / "data")}
    line = only_line(asr_lab("data", "prepare", "an4", cwd=tmp_path, **here))
    assert "an4_sphere.tar.gz: the server answers 404 (Not Found); or get an4_sphere.tar.gz elsewhere, then " in line
    assert "`asr-lab data prepare an4 --from an4_sphere.tar.gz`" in line
    assert "nowhere: is not there" in only_line(
        asr_lab("data", "prepare", "an4", "--from", "nowhere", cwd=tmp_path, **here)
    )
    assert "data.manifest is missing" in only_line(asr_lab("data", "prepare", "manifest", cwd=tmp_path))
    line = only_line(asr_lab("data", "prepare", "fsdd_strings", "--from", "x", cwd=tmp_path))
    assert "made in the cache" in line and "prepare fsdd" in line
    assert "an4" in only_line(asr_lab("data", "prepare", "an5", cwd=tmp_path))
    line = only_line(asr_lab("data", "prepare", "fsdd_strings", cwd=tmp_path, **here))
    assert "`asr-lab data prepare fsdd` makes it" in line


def test_without_asr_lab_data_corpora_go_to_the_cache_and_are_found_there(asr_lab, tmp_path, monkeypatch):
    monkeypatch.delenv("ASR_LAB_DATA", raising=False)
    folder = unpacked_by_hand(yesno_files(), tmp_path / "have")
    cache = {"ASR_LAB_CACHE": str(tmp_path / "cache")}
    done = asr_lab("data", "prepare", "yesno", "--from", str(folder), cwd=tmp_path, **cache)
    assert done.stdout.splitlines()[0] == str(tmp_path / "cache/corpora/yesno/manifest.jsonl"), done.stderr
    monkeypatch.setenv("ASR_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ASR_LAB_DATA", str(tmp_path / "empty"))
    assert make(resolved(composed("data=yesno")), "data").manifest == Path(done.stdout.splitlines()[0])
    elsewhere = asr_lab("data", "prepare", "yesno", "--from", str(folder), "--to", "there", cwd=tmp_path, **cache)
    assert elsewhere.stdout.splitlines()[0] == str(tmp_path / "there/yesno/manifest.jsonl")
    assert f"set ASR_LAB_DATA={tmp_path / 'there'} to train on it" in elsewhere.stderr


def test_a_missing_corpus_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("ASR_LAB_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match=r"an4/manifest.jsonl is not there; `asr-lab data prepare an4` makes it \(--from"
    ):
        make(resolved(composed("data=an4")), "data")


def test_how_a_corpus_is_prepared_is_no_part_of_a_runs_identity():
    config = composed_once("fsdd")
    mine = copy.deepcopy(config)
    mine["data"]["prepare"]["archives"][0]["url"] = "https://mirror.example/fsdd.tar.gz"
    assert fingerprint(mine) == fingerprint(config)
    strings = composed_once("fsdd_strings")
    longer = copy.deepcopy(strings)
    longer["data"]["strings"]["n_digits"] = [3, 9]
    assert fingerprint(longer) != fingerprint(strings)


def test_a_wrong_key_of_an_archive_is_named(tmp_path):
    config = config_of("yesno")
    config["data"]["prepare"]["archives"][0]["sha265"] = "x"
    with pytest.raises(ConfigError, match=r"data.prepare.archives: .*'sha265'"):
        prepare(config, tmp_path)


@pytest.mark.skipif(not os.environ.get("ASR_LAB_DATA"), reason="ASR_LAB_DATA is not set: no corpora here")
@pytest.mark.parametrize("name", ["an4", "fsdd", "yesno"])
def test_corpora_of_asr_lab_data_are_where_they_were(name):
    config = composed_once(name)["data"]
    there = locate(name, config["manifest"], corpora_dirs(os.environ["ASR_LAB_DATA"]))
    assert there == Path(os.environ["ASR_LAB_DATA"], name, "manifest.jsonl").absolute()
