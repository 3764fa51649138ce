"""The feature cache: the same numbers, computed once, in parallel, resumed, mended; one line when it cannot be."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from asr_lab.build import build_data, identity, make
from asr_lab.data import store
from asr_lab.data.block import Block
from asr_lab.data.pipeline import Pipeline
from asr_lab.errors import DataError, DiskFullError
from asr_lab.sweep.cell import resolved

from .conftest import composed, tiny, write_tones


@pytest.fixture(autouse=True)
def cache_root(tmp_path, monkeypatch):
    monkeypatch.setenv("ASR_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("asr_lab.data.block.SIZE", 8)
    monkeypatch.setattr(store, "SIZE", 8)  # several blocks of a small corpus
    return tmp_path / "cache" / "features"


def data_of(manifest, *overrides):
    """The corpus with its cache open."""
    config = resolved(composed(*tiny(manifest, *overrides)))
    data = build_data(config, make(config, "frontend"))
    data.open_cache(make(config, "cache"), identity(config))
    return data


def epoch_of(data, split="train", epoch=1):
    dataset = data.datasets[split]
    return [dataset.features(i, epoch) for i in range(len(dataset))]


def same(a, b, atol=0.0):
    return all(x.shape == y.shape and torch.allclose(x, y, rtol=0, atol=atol) for x, y in zip(a, b, strict=True))


def files(root):
    return {p: p.stat().st_mtime_ns for p in root.rglob("*.bin")}


@pytest.mark.parametrize("augment", ["none", "speed", "specaugment_speed"])
@pytest.mark.parametrize("cmvn", ["utterance", "speaker", "global", "none"])
@pytest.mark.quick(3)
def test_fp32_gives_the_numbers_of_no_cache(tones, augment, cmvn):
    choices = (f"augment={augment}", f"frontend/cmvn={cmvn}")
    cached = data_of(tones, "cache.dtype=float32", *choices)
    plain = data_of(tones, "cache=none", *choices)
    for split in ("train", "val", "test"):
        assert same(epoch_of(cached, split), epoch_of(plain, split))


def test_fp16_is_close(tones):
    assert same(
        epoch_of(data_of(tones, "augment=speed")), epoch_of(data_of(tones, "cache=none", "augment=speed")), 0.01
    )


def test_global_and_speaker_normalisation_do_what_they_say(tones):
    data = data_of(tones, "frontend/cmvn=global")
    frames = torch.cat(epoch_of(data))
    torch.testing.assert_close(frames.mean(dim=0), torch.zeros(24), atol=1e-2, rtol=0)
    torch.testing.assert_close(frames.std(dim=0, correction=0), torch.ones(24), atol=1e-2, rtol=0)
    assert torch.cat(epoch_of(data, "test")).mean(dim=0).abs().max() > 1e-2  # the training split's moments, not its own
    data = data_of(tones, "frontend/cmvn=speaker")
    feats = epoch_of(data, "test")
    for speaker in {u.speaker for u in data.corpus.splits["test"]}:
        own = torch.cat([f for f, u in zip(feats, data.corpus.splits["test"], strict=True) if u.speaker == speaker])
        torch.testing.assert_close(own.mean(dim=0), torch.zeros(24), atol=1e-2, rtol=0)


def test_speaker_normalisation_wants_speakers(tmp_path):
    manifest = write_tones(tmp_path)
    manifest.write_text(manifest.read_text().replace('"speaker"', '"who"'))
    with pytest.raises(DataError, match="has no speaker, which frontend/cmvn=speaker needs"):
        data_of(manifest, "frontend/cmvn=speaker").loader("train")


def test_computed_once_and_shared(tones, cache_root, monkeypatch):
    data_of(tones, "augment=speed")
    before = files(cache_root)
    assert len(before) == 2 * 3 + 5  # 24 training utterances at 0.9 and 1.1, all 36 at 1.0, in blocks of 8
    monkeypatch.setattr(Pipeline, "audio", lambda *a: pytest.fail("computed twice"))
    for other in ("frontend/cmvn=global", "encoder=bilstm", "seed=7", "tokenizer=char_train", "augment=specaugment"):
        epoch_of(data_of(tones, other))
    assert files(cache_root) == before


def test_other_configuration_or_audio_makes_other_files(tones, tmp_path, cache_root):
    (tmp_path / "own").mkdir()
    manifest = write_tones(tmp_path / "own")
    data_of(manifest)
    count = len(files(cache_root))
    data_of(manifest, "frontend.n_mels=20")
    assert len(files(cache_root)) == 2 * count
    audio = manifest.parent / "train3.wav"
    old = epoch_of(data_of(manifest))
    raw = bytearray(audio.read_bytes())
    raw[-4000:] = bytes(4000)  # same length, other content
    audio.write_bytes(raw)
    assert len(files(cache_root)) == 2 * count
    assert not same(epoch_of(data_of(manifest)), old)
    assert len(files(cache_root)) == 2 * count + 1  # one block knew the file


def test_changed_source_makes_other_files(tones, cache_root, monkeypatch):
    data_of(tones)
    monkeypatch.setattr(store, "_code", lambda identity: "changed")
    data_of(tones)
    assert len({p.parent for p in files(cache_root)}) == 2


@pytest.mark.parametrize("how", ["flip", "cut", "index", "gone"])
def test_damaged_files_are_computed_again(tones, cache_root, how, caplog):
    want = epoch_of(data_of(tones))
    for path in files(cache_root):
        raw = bytearray(path.read_bytes())
        if how == "flip":
            raw[len(raw) // 3] ^= 255
            path.write_bytes(raw)
        elif how == "cut":
            path.write_bytes(raw[: len(raw) // 2])
        elif how == "index":
            path.with_suffix(".json").write_text('{"lengths": [1')
        else:
            path.unlink()
    assert same(epoch_of(data_of(tones)), want)
    assert same(epoch_of(data_of(tones)), want)
    assert ("damaged (" in caplog.text) == (how == "flip")


def test_several_processes_give_the_same_files(tones, cache_root, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "WORTH_A_POOL", 1)
    data_of(tones, "augment=speed", "cache.n_workers=2")
    parallel = {p.name: p.read_bytes() for p in files(cache_root)}
    monkeypatch.setenv("ASR_LAB_CACHE", str(tmp_path / "other"))
    data_of(tones, "augment=speed", "cache.n_workers=1")
    assert {p.name: p.read_bytes() for p in files(tmp_path / "other")} == parallel


def _fill(manifest, barrier):
    barrier.wait()
    data_of(manifest, "augment=speed")


def test_two_processes_at_once_do_it_once(tones, cache_root, monkeypatch):
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(2)
    write = Block.write
    counted = fork.Value("i", 0)

    def slow(self, compute):
        with counted.get_lock():
            counted.value += 1
        time.sleep(0.02)
        write(self, compute)

    monkeypatch.setattr(Block, "write", slow)
    both = [fork.Process(target=_fill, args=(tones, barrier)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert counted.value == len(files(cache_root)) == 11


BUILD = """
import sys, time
sys.path.insert(0, {root!r})
from tests.test_cache import data_of, store
import asr_lab.data.block as block
store.SIZE = 8
store.WORTH_A_POOL = {pool}
write = block.Block.write
def slow(self, compute):
    write(self, compute)
    time.sleep(0.3)
block.Block.write = slow
print("ready", flush=True)
data_of({manifest!r}, "augment=speed", "cache.n_workers=2")
"""


@pytest.mark.slow
@pytest.mark.parametrize("pool", [pytest.param(1, id="workers"), pytest.param(10_000, id="alone")])
def test_a_killed_build_goes_on(tones, cache_root, monkeypatch, pool):
    code = BUILD.format(root=os.getcwd(), manifest=str(tones), pool=pool)
    process = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ))
    for _ in range(3000):
        if len(list(cache_root.rglob("*.json"))) >= 3 or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {p.stem for p in cache_root.rglob("*.json")} - {"about"}
    assert 2 <= len(done) < 11
    written = []
    write = Block.write
    monkeypatch.setattr(Block, "write", lambda self, compute: (written.append(self.key), write(self, compute)))
    got = epoch_of(data_of(tones, "augment=speed", "cache.n_workers=1"))
    assert not done & set(written)
    assert len(written) == 11 - len(done)
    assert same(got, epoch_of(data_of(tones, "augment=speed", "cache=none")), 0.01)


def test_a_worker_that_dies_is_one_line(tones, monkeypatch):
    monkeypatch.setattr(store, "WORTH_A_POOL", 1)
    monkeypatch.setattr(Block, "write", lambda self, compute: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(DataError, match=r"died .*what is finished is kept"):
        data_of(tones, "cache.n_workers=2")


def test_no_room_is_said_before_anything_is_computed(tones, monkeypatch):
    monkeypatch.setattr(store, "_free_bytes", lambda folder: 1000)
    monkeypatch.setattr(Block, "write", lambda *a: pytest.fail("computed"))
    with pytest.raises(DiskFullError, match=r"needs [\d.]+ kB, 1 kB are free; .*ASR_LAB_CACHE.*cache=none"):
        data_of(tones)


def test_size_is_announced_and_right(tones, cache_root, caplog):
    with caplog.at_level("INFO"):
        data_of(tones, "augment=speed")
    [line] = [r.getMessage() for r in caplog.records if "caching" in r.getMessage()]
    said = float(line.split(" utterances, ")[1].split(" kB")[0]) * 1000
    moments = (24 * 3 + 12) * 2 * 24 * 8
    assert said == pytest.approx(sum(p.stat().st_size for p in files(cache_root)) - moments, rel=0.01)


def test_a_folder_that_cannot_be_written(tones, cache_root, monkeypatch):
    cache_root.parent.mkdir()
    cache_root.write_text("a file where a folder belongs")
    with pytest.raises(DataError, match=r"the feature cache cannot be written .*cache=none"):
        data_of(tones)


def test_a_cache_that_is_full_can_be_read_without_writing(tones, cache_root, monkeypatch):
    want = epoch_of(data_of(tones))
    monkeypatch.setattr(store.Store, "_locked", lambda self: pytest.fail("wanted to write"))
    assert same(epoch_of(data_of(tones)), want)


def test_about_says_what_it_is(tones, cache_root):
    data_of(tones)
    [about] = cache_root.rglob("about.json")
    content = json.loads(about.read_text())
    assert content["corpus"] == str(tones)
    assert content["frontend"]["n_mels"] == 24
    assert "cmvn" not in content["frontend"]


def test_loading_processes_read_the_same(tones):
    a = [b.feats for b in data_of(tones, "augment=specaugment_speed").loader("train")]
    b = [b.feats for b in data_of(tones, "augment=specaugment_speed", "runtime.n_workers=2").loader("train")]
    assert same(a, b)


def test_the_command_lists_and_removes(tones, cache_root, asr_lab, tmp_path):
    data_of(tones)
    [folder] = cache_root.iterdir()
    done = asr_lab("data", "cache", cwd=tmp_path)
    assert folder.name in done.stdout and "kB" in done.stdout
    asr_lab("data", "cache", "--remove", "--unused-days", "1", cwd=tmp_path)
    assert folder.exists()
    asr_lab("data", "cache", "other", "--remove", cwd=tmp_path)
    assert folder.exists()
    done = asr_lab("data", "cache", "manifest", "--remove", cwd=tmp_path)
    assert "removed" in done.stdout
    assert not folder.exists()


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_disk_that_fills_up_meanwhile_leaves_nothing_half(tones, cache_root, monkeypatch, n_workers):
    monkeypatch.setattr(store, "WORTH_A_POOL", 1)
    real, calls = os.fsync, []

    def fsync(fd):
        calls.append(fd)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd)

    with monkeypatch.context() as m:
        m.setattr(os, "fsync", fsync)
        with pytest.raises(DiskFullError, match=r"cannot write \(No space left on device\); free some space"):
            data_of(tones, "augment=speed", f"cache.n_workers={n_workers}")
    assert not list(cache_root.rglob(".*.bin.*")) + list(cache_root.rglob(".*.json.*"))
    kept = {path: time for path, time in files(cache_root).items() if path.with_suffix(".json").exists()}
    assert kept
    assert same(
        epoch_of(data_of(tones, "augment=speed")), epoch_of(data_of(tones, "augment=speed", "cache=none")), 0.01
    )
    assert kept.items() <= files(cache_root).items()
