"""Tar shards: read in place, and batches that use up one after another, counted over ranks and workers."""

import io
import json
import os
import tarfile
from collections import Counter

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from asr_lab.data import audio, tars
from asr_lab.data.shards import ShardBuckets, interleaved
from asr_lab.errors import ConfigError, DataError

from .conftest import composed, tiny

# Shards


def write_tar(path, members: dict[str, bytes]):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def wav(seconds=0.1, value=0.25) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.full(round(8000 * seconds), value), 8000, format="WAV")
    return out.getvalue()


def test_members_are_read_where_they_lie(tmp_path, monkeypatch):
    long_name = "folder/" + "ü" * 120 + ".wav"  # needs more than one header
    path = write_tar(tmp_path / "a.tar", {"x.wav": wav(), "empty.txt": b"", long_name: wav(value=0.5)})
    opened = []
    monkeypatch.setattr(tars, "Shard", lambda p, make=tars.Shard: opened.append(p) or make(p))
    assert tars.member_bytes(path, "empty.txt") == b""
    for name, value in ((long_name, 0.5), ("x.wav", 0.25)):
        samples, rate = audio.read(path, name)
        assert rate == 8000 and len(samples) == 800
        np.testing.assert_allclose(samples, value, atol=1e-4)
    assert opened == [path]


def test_few_shards_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "KEPT", 2)
    paths = [write_tar(tmp_path / f"{i}.tar", {"x": bytes([i])}) for i in range(5)]
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    assert [tars.member_bytes(p, "x") for p in paths] == [bytes([i]) for i in range(5)]
    assert len(tars._shards) == 2
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + 2


def damaged(path, kind):
    members = {f"{i}.wav": wav() for i in range(3)}
    write_tar(path, members)
    whole = path.read_bytes()
    block = 512 + -(-len(members["0.wav"]) // 512) * 512
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no tar":
        path.write_text("this is no tar\n" * 100)
    elif kind == "cut inside":
        path.write_bytes(whole[: block + 700])
    elif kind == "cut between":
        path.write_bytes(whole[: 2 * block])
    elif kind == "compressed":
        path.write_bytes(b"\x1f\x8b" + bytes(100))
    elif kind == "twice":
        with tarfile.open(path, "a") as tar:
            tar.addfile(tarfile.TarInfo("0.wav"), io.BytesIO())
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "missing file: {}; check the path"),
        ("empty", "truncated file: {} is no whole tar"),
        ("no tar", "truncated file: {} is no whole tar"),
        ("cut inside", "truncated file: {} is no whole tar"),
        ("cut between", "truncated file: {} is no whole tar"),
        ("compressed", "not a tar: {} is compressed"),
        ("twice", "duplicated member: {} has 0.wav twice"),
        ("folder", "truncated file: {} is no whole tar"),
    ],
)
def test_damaged_shards_are_named(tmp_path, kind, says):
    path = damaged(tmp_path / "s.tar", kind)
    with pytest.raises(DataError) as caught:
        tars.member_bytes(path, "0.wav")
    assert str(caught.value).startswith(says.format(path))


def test_a_member_that_is_not_there_and_a_shard_that_shrinks(tmp_path):
    path = write_tar(tmp_path / "s.tar", {"a.wav": wav(), "b.wav": wav()})
    with pytest.raises(DataError, match=r"missing file: .*s.tar has no member c.wav"):
        tars.member_bytes(path, "c.wav")
    os.truncate(path, 1000)  # while it is open
    with pytest.raises(DataError, match=r"truncated file: .*s.tar ends inside b.wav"):
        tars.member_bytes(path, "b.wav")


# Batches


def corpus(n_shards=8, n_each=40, seed=0) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(-(-n_each // 2), n_each + 1, n_shards)
    shards = [f"{k}.tar" for k, size in enumerate(sizes) for _ in range(size)]
    return rng.uniform(0.5, 8.0, len(shards)), shards


def sampler(seconds, shards, **changes) -> ShardBuckets:
    values = {
        "lengths": lambda epoch: seconds,
        "shards": shards,
        "shuffle": True,
        "seed": 3,
        "batch_seconds": 24.0,
        "n_buckets": 4,
        "n_streams": 4,
        "reshuffle": True,
    }
    return ShardBuckets(**{**values, **changes})


def by_worker(seconds, shards, world_size, n_workers, **changes) -> dict[tuple[int, int], list[list[int]]]:
    """The batches that each worker of each rank gets: a DataLoader deals items to its workers in turn."""
    hands = {}
    for rank in range(world_size):
        items = list(sampler(seconds, shards, rank=rank, world_size=world_size, **changes))
        for w in range(n_workers):
            hands[rank, w] = [batch for _, batch in items[w::n_workers]]
    return hands


def n_opened(batches, shards) -> int:
    """How often a worker that holds no shard but the present one of each stream would open one: runs, at least."""
    return len({shards[i] for batch in batches for i in batch})


@given(
    st.integers(1, 9),
    st.integers(1, 30),
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_or_done_twice(n_shards, n_each, n_streams, world_size, n_workers, shuffle, epoch):
    seconds, shards = corpus(n_shards, n_each, seed=n_each)
    ranks = []
    for rank in range(world_size):
        s = sampler(seconds, shards, rank=rank, world_size=world_size, n_streams=n_streams, shuffle=shuffle, seed=epoch)
        s.set_epoch(epoch)
        items = list(s)
        assert len(items) == len(s)
        assert {e for e, _ in items} <= {epoch}
        ranks.append([batch for _, batch in items])
    hands = [batches[w::n_workers] for batches in ranks for w in range(n_workers)]  # as a DataLoader deals them
    counted = Counter(i for batches in hands for batch in batches for i in batch)
    assert counted.keys() == set(range(len(shards)))
    if not shuffle:
        assert set(counted.values()) == {1}
        return
    assert len({len(batches) for batches in ranks}) == 1
    in_order = [ranks[k % world_size][k // world_size] for k in range(sum(map(len, ranks)))]
    n_own = s.n_batches  # what comes after them fills up
    assert len(in_order) - n_own < world_size
    assert Counter(i for batch in in_order[:n_own] for i in batch) == dict.fromkeys(range(len(shards)), 1)


def test_batches_lie_in_one_shard_and_within_their_seconds():
    seconds, shards = corpus()
    for _, batch in sampler(seconds, shards):
        assert len({shards[i] for i in batch}) == 1
        assert len(batch) == 1 or max(seconds[batch]) * len(batch) <= 24.0


def test_batches_do_not_depend_on_ranks_or_streams_of_workers():
    seconds, shards = corpus()
    alone = [batch for _, batch in sampler(seconds, shards)]
    for world_size in (2, 3):
        hands = [list(sampler(seconds, shards, rank=r, world_size=world_size)) for r in range(world_size)]
        together = [hands[k % world_size][k // world_size][1] for k in range(len(alone))]
        assert together == alone


def test_seed_and_epoch_decide():
    seconds, shards = corpus()
    first = list(sampler(seconds, shards))
    assert list(sampler(seconds, shards)) == first
    assert list(sampler(seconds, shards, seed=4)) != first
    s = sampler(seconds, shards)
    s.set_epoch(1)
    second = list(s)
    assert len(second) == len(first)
    assert [b for _, b in second] != [b for _, b in first]
    assert [shards[b[0]] for _, b in second[:4]] != [shards[b[0]] for _, b in first[:4]]  # other shards come first
    same = sampler(seconds, shards, reshuffle=False)
    same.set_epoch(7)
    assert list(same) == [(7, b) for _, b in sampler(seconds, shards, reshuffle=False)]


def test_every_epoch_has_as_many_batches_when_lengths_change():
    seconds, shards = corpus()

    def perturbed(epoch):
        return seconds / np.random.default_rng(epoch).choice([0.9, 1.0, 1.1], len(seconds))

    s = sampler(seconds, shards, lengths=perturbed)
    for epoch in range(8):
        s.set_epoch(epoch)
        batches = [b for _, b in s]
        assert len(batches) == len(s)
        assert sorted(i for b in batches for i in b) == list(range(len(shards)))


def test_a_resumed_epoch_goes_on_where_it_was():
    seconds, shards = corpus()
    s = sampler(seconds, shards, rank=1, world_size=2)
    whole = list(s)
    s.start = 5
    assert list(s) == whole[5:]
    assert list(s) == whole  # of the next epoch, all


@pytest.mark.parametrize(("world_size", "n_workers"), [(1, 1), (1, 2), (2, 1), (2, 2), (1, 4), (3, 4)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_workers_share_hardly_any_shard_when_streams_fit(world_size, n_workers, shuffle):
    seconds, shards = corpus(n_shards=48)
    n_streams = world_size * n_workers * 2
    hands = by_worker(seconds, shards, world_size, n_workers, n_streams=n_streams, shuffle=shuffle)
    opened = sum(n_opened(batches, shards) for batches in hands.values())
    # Every stream may take of others' shards at the end, and again of what such a one has left.
    assert opened - 48 <= (2 * n_streams if len(hands) > 1 else 0)
    unfit = by_worker(seconds, shards, world_size, n_workers, n_streams=n_streams + 1, shuffle=shuffle)
    if len(hands) > 1:
        assert sum(n_opened(batches, shards) for batches in unfit.values()) > 1.5 * opened


def test_a_worker_reads_a_shard_of_each_stream_from_start_to_end():
    """Apart from the tail, a shard that was left is not met again."""
    seconds, shards = corpus(n_shards=24)
    for batches in by_worker(seconds, shards, 1, 2, n_streams=4).values():
        body = [shards[b[0]] for b in batches[: len(batches) * 2 // 3]]
        for stream in (body[0::2], body[1::2]):
            runs = [s for k, s in enumerate(stream) if k == 0 or stream[k - 1] != s]
            assert len(runs) == len(set(runs)) > 2


def test_streams_that_run_dry_take_half_of_the_longest():
    assert interleaved([[[0]], [[1], [2], [3], [4], [5]]], 2) == [[0], [1], [4], [2], [5], [3]]
    assert interleaved([[[0], [1], [2], [3]]], 1) == [[0], [1], [2], [3]]
    assert interleaved([[[0]], [[1]], [[2]]], 2) == [[0], [1], [2]]
    assert interleaved([], 3) == []


class Reader(Dataset):
    """Reads a batch's members, and says which process did and how many shards it has opened so far."""

    def __init__(self, paths, members):
        self.paths, self.members = paths, members

    def __getitem__(self, item):
        _, indices = item
        if not hasattr(self, "opened"):
            self.opened = []
            make = tars.Shard
            tars.Shard = lambda path: self.opened.append(path.name) or make(path)
        content = [tars.member_bytes(self.paths[i], self.members[i]) for i in indices]
        return os.getpid(), indices, content, list(self.opened)


def test_two_real_workers_open_each_shard_once(tmp_path):
    seconds, shards = corpus(n_shards=12, n_each=20)
    members = [f"{i}.bin" for i in range(len(shards))]
    for shard in set(shards):
        write_tar(tmp_path / shard, {m: m.encode() for m, s in zip(members, shards, strict=True) if s == shard})
    s = sampler(seconds, shards, n_streams=2)
    paths = [tmp_path / shard for shard in shards]
    loader = DataLoader(Reader(paths, members), sampler=s, batch_size=None, collate_fn=lambda x: x, num_workers=2)
    last: dict[int, list[str]] = {}
    seen = []
    for pid, indices, content, opened in loader:
        assert content == [members[i].encode() for i in indices]
        seen += indices
        last[pid] = opened
    assert seen == [i for _, batch in s for i in batch]  # the order of one process
    assert len(last) == 2
    assert all(len(opened) == len(set(opened)) for opened in last.values())  # once a worker
    assert 12 <= sum(map(len, last.values())) <= 12 + 2  # and the last ones by both


def test_padding_is_that_of_buckets():
    rng = np.random.default_rng(1)
    shards = [f"{k}.tar" for k in range(4) for _ in range(1500)]
    seconds = rng.uniform(1.0, 16.0, len(shards))

    def waste(**changes):
        s = sampler(seconds, shards, **changes)
        return sum(max(seconds[b]) * len(b) for _, b in s) / seconds.sum() - 1

    assert waste(n_buckets=24, batch_seconds=60.0) < 0.05 < waste(n_buckets=1, batch_seconds=60.0)


@pytest.mark.parametrize("bad", [{"batch_seconds": 0}, {"n_buckets": 0}, {"n_streams": 0}])
def test_values_that_cannot_be(bad):
    with pytest.raises(ConfigError, match="must be positive"):
        sampler(*corpus(), **bad)


def test_sharded_manifest_goes_through_training_data(tmp_path, tones):
    """Export, then the lines of the manifest are read like any others."""
    from asr_lab.data.formats import Target, webdataset
    from asr_lab.data.manifest import read_manifest

    plain = {u.id: u for u in read_manifest(tones)}
    webdataset.write(list(plain.values()), Target(tmp_path / "tars", 20_000, 0))
    sharded = read_manifest(tmp_path / "tars" / "manifest.jsonl")
    assert {u.id for u in sharded} == plain.keys()
    assert len({u.audio for u in sharded}) > 3
    for u in sharded[::5]:
        np.testing.assert_array_equal(audio.read(u.audio, u.member)[0], audio.read(plain[u.id].audio)[0])
    rows = [json.loads(line) for line in (tmp_path / "tars" / "manifest.jsonl").read_text().splitlines()]
    assert not any(os.path.isabs(row["audio_filepath"]) for row in rows)


def test_training_from_shards_reads_each_once(tmp_path, tones, monkeypatch):
    from asr_lab.build import build_data, make
    from asr_lab.data.formats import Target, webdataset
    from asr_lab.data.manifest import read_manifest
    from asr_lab.sweep.cell import resolved

    webdataset.write(read_manifest(tones), Target(tmp_path / "tars", 20_000, 0))
    overrides = tiny(tmp_path / "tars", "batching=shards", "batching.batch_seconds=3", "batching.n_streams=1")
    config = resolved(composed(*overrides))
    data = build_data(config, make(config, "frontend"))
    read = []
    monkeypatch.setattr(tars, "member_bytes", lambda p, m, real=tars.member_bytes: read.append(p.name) or real(p, m))
    monkeypatch.setattr(audio, "member_bytes", tars.member_bytes)
    ids = [i for batch in data.loader("train") for i in batch.ids]
    assert sorted(ids) == sorted(u.id for u in data.corpus.splits["train"])
    runs = [p for k, p in enumerate(read) if k == 0 or read[k - 1] != p]
    assert len(runs) == len(set(runs)) > 3
