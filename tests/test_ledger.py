"""The ledger: many writers, none waiting; kills, full disks and newer versions."""

import json
import multiprocessing
import os
import resource
import signal
import socket
import time
from pathlib import Path

import pytest

from asr_lab.errors import DiskFullError, RunError
from asr_lab.ledger import FOLDER, Ledger, last_events, mend, read_events


def test_what_is_appended_is_read_in_order(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append("a", "queued", job="17")
    ledger.append("b", "queued")
    ledger.append("a", "failed", "out of memory")
    events, damage = read_events(tmp_path)
    assert not damage and [(e.cell, e.state) for e in events] == [("a", "queued"), ("b", "queued"), ("a", "failed")]
    assert events[0].more == {"job": "17"} and events[0].pid == os.getpid() and events[2].reason == "out of memory"
    assert {cell: e.state for cell, e in last_events(events).items()} == {"a": "failed", "b": "queued"}


def test_nothing_written_is_no_event(tmp_path):
    assert read_events(tmp_path) == ([], [])
    Ledger(tmp_path).close()
    assert not (tmp_path / FOLDER).exists()


def _many(folder: str, number: int) -> None:
    ledger = Ledger(Path(folder))
    for i in range(50):
        ledger.append(f"{number}-{i}", "done", score=0.1)


def test_thirty_two_writers_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_many, args=(str(tmp_path), n)) for n in range(32)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    events, damage = read_events(tmp_path)
    assert not damage and len({e.cell for e in events}) == 32 * 50


def _until_killed(folder: str) -> None:
    ledger = Ledger(Path(folder))
    i = 0
    while True:
        ledger.append(f"c{i}", "done", padding="x" * 5000)
        i += 1


def test_a_killed_writer_leaves_every_line_whole_but_the_last(tmp_path):
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        writer = context.Process(target=_until_killed, args=(str(tmp_path),))
        writer.start()
        time.sleep(0.05)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    events, damage = read_events(tmp_path)
    assert all("torn" in line for line in damage) and len(damage) <= 5
    assert all(len(e.more["padding"]) == 5000 for e in events)


def test_a_torn_last_line_is_said_and_others_stand(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append("a", "done")
    [file] = (tmp_path / FOLDER).glob("*.jsonl")
    file.write_bytes(file.read_bytes() + b'{"v": 1, "cell": "b", "sta')
    events, [line] = read_events(tmp_path)
    assert [e.cell for e in events] == ["a"] and f"{file}:2: a torn last line" in line


def test_a_line_that_is_no_event_is_said(tmp_path):
    (tmp_path / FOLDER).mkdir()
    rows = ["[]", "{}", "3", json.dumps({"v": 1, "cell": "a", "state": "lost", "time": 1, "host": "h", "pid": 1})]
    (tmp_path / FOLDER / "x.jsonl").write_text("\n".join(rows) + "\n")
    events, damage = read_events(tmp_path)
    assert not events and len(damage) == 4


def test_a_newer_ledger_is_refused(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "x.jsonl").write_text('{"v": 2, "cell": "a"}\n')
    with pytest.raises(RunError, match="newer asr_lab"):
        read_events(tmp_path)


def test_a_full_disk_is_one_line_and_leaves_no_half_line(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append("a", "done")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))
        with pytest.raises((DiskFullError, OSError)):
            ledger.append("b", "done", padding="x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    ledger.append("c", "done")
    events, damage = read_events(tmp_path)
    assert [e.cell for e in events] == ["a", "c"] and not damage


def test_a_torn_last_line_of_a_dead_process_is_taken_off(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append("a", "planned")
    [own] = (tmp_path / "ledger").iterdir()
    dead = own.with_name(f"20260101T000000-{socket.gethostname()}-{2**22 + 1}.jsonl")
    dead.write_bytes(own.read_bytes() + b'{"v": 1, "cell": "b", "sta')
    said = mend(tmp_path)
    assert len(said) == 1 and f"{dead}: a torn last line, taken off" in said[0]
    assert dead.read_bytes() == own.read_bytes()
    assert mend(tmp_path) == []
    with open(own, "ab") as f:  # this process lives: it may be writing
        f.write(b'{"v": 1')
    assert "left out" in mend(tmp_path)[0] and own.read_bytes().endswith(b'{"v": 1')
