"""One process holds a run; others see who, and whether it is alive."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from asr_lab import hold as module
from asr_lab.hold import BusyError, hold, holder

HOLDING = """
import sys, time, pathlib
from asr_lab.hold import hold
with hold(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the run"""
    child = subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout and child.stdout.readline() == b"held\n"
    yield child
    child.kill()
    child.wait()


def test_one_at_a_time_and_who_it_is(tmp_path, other):
    who = holder(tmp_path)
    assert who and (who.pid, who.host, who.is_alive) == (other.pid, socket.gethostname(), True)
    with pytest.raises(BusyError, match=rf"by another process \(pid {other.pid} on"), hold(tmp_path):
        pass


def test_a_killed_holder_is_seen_and_followed(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    who = holder(tmp_path)
    assert who and not who.is_alive
    with hold(tmp_path):
        who = holder(tmp_path)
        assert who and who.pid == os.getpid() and who.is_alive
    assert holder(tmp_path) is None


def test_a_pid_that_is_used_again_is_another_process(tmp_path):
    with hold(tmp_path):
        path = tmp_path / ".lock"
        path.write_text(path.read_text().rpartition(" ")[0] + " 12345\n")
        who = holder(tmp_path)
        assert who and who.pid == os.getpid() and not who.is_alive


def test_a_heart_on_another_host_counts_where_its_lock_does_not_reach(tmp_path):
    (tmp_path / ".lock").write_text("pid 1 on elsewhere started 5\n")
    with pytest.raises(BusyError, match="pid 1 on elsewhere"), hold(tmp_path):
        pass
    late = time.time() - 1.1 * module.GONE_S
    os.utime(tmp_path / ".lock", (late, late))
    with hold(tmp_path):
        pass


def test_it_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT_S", 0.02)
    with hold(tmp_path):
        os.utime(tmp_path / ".lock", (1.0, 1.0))
        until = time.monotonic() + 10
        while (tmp_path / ".lock").stat().st_mtime < 2 and time.monotonic() < until:
            time.sleep(0.01)
        who = holder(tmp_path)
        assert who and who.age_s < 5


def test_nobody(tmp_path):
    assert holder(tmp_path) is None
    (tmp_path / ".lock").write_text("")
    assert holder(tmp_path) is None
    (tmp_path / ".lock").write_text("pid 17 on a-host\n")  # an older version's
    assert holder(tmp_path) is None
