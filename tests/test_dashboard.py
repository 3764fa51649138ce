"""The dashboard's server: every address, who is answered, files in every state of damage, and nothing read twice."""

import http.client
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from asr_lab.dashboard import answers
from asr_lab.dashboard.app import STATIC, Dashboard, application
from asr_lab.dashboard.metrics import Columns, thin
from asr_lab.dashboard.serve import bind, is_loopback
from asr_lab.errors import AsrLabError

from .conftest import only_line
from .outputs import write_gradients, write_outputs, write_run
from .test_imports import SOURCE, imports, loaded_after

HOSTS = {"127.0.0.1", "localhost", "::1"}
EXPERIMENT = "encoder_x_clipping"
FACTORS = {"encoder": "bilstm", "clipping": "norm", "clipping.threshold": 1.0, "seed": 1}
HOSTILE = "<script>window.hacked=1</script>"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dashboard") / "outputs"
    write_gradients(_run(write_outputs(folder, 60)))
    return folder


@pytest.fixture
def own(tmp_path) -> Path:
    """An outputs folder that a test may harm, with two runs and no plan."""
    home = tmp_path / "outputs" / "x"
    for i, encoder in enumerate(("bilstm", "gru")):
        factors = {"encoder": encoder, "clipping": "norm", "clipping.threshold": 1.0, "seed": 1}
        write_run(home / f"r{i}", factors, random.Random(i))
    return tmp_path / "outputs"


def client(folder: Path, **options) -> TestClient:
    options = {"hosts": HOSTS} | options
    return TestClient(application(folder, **options), base_url="http://127.0.0.1", follow_redirects=False)


def _run(home: Path) -> Path:
    return next(p.parent for p in sorted(home.glob("*/hyps.test.jsonl")))


def api(experiment: str = "x", run: str | None = None, what: str = "") -> str:
    address = f"/api/experiments/{quote(experiment, safe='')}"
    return address + (f"/runs/{quote(run, safe='')}" if run else "") + what


# --- what is served ----------------------------------------------------------------------------------------------


def test_experiments_with_their_counts(outputs):
    found = client(outputs).get("/api/experiments").json()
    (one,) = found["experiments"]
    assert found["outputs"] == "outputs"
    assert (one["name"], one["pending"], one["total"]) == (EXPERIMENT, False, 60)
    assert sum(one["counts"].values()) == 60 and one["counts"]["done"] > 40
    assert one["question"].startswith("Which clipping")


def test_cells_with_state_factors_and_numbers(outputs):
    view = client(outputs).get(api(EXPERIMENT)).json()
    assert view["factors"] == ["encoder", "clipping", "clipping.threshold"]
    assert view["fixed"] == {"decoder": "ctc", "data": "spoken_numbers", "optimizer": "adamw"}
    assert {c["state"] for c in view["cells"]} >= {"done", "running", "failed", "exploded", "preempted", "planned"}
    by_state = {c["state"]: c for c in view["cells"]}
    assert by_state["done"]["numbers"]["parameters"] > 1e6
    assert by_state["running"]["steps"] == 1200 and by_state["running"]["eta_s"] >= 0
    assert by_state["failed"]["reason"] == "RuntimeError: out of memory"
    assert by_state["preempted"]["reason"] == "its process is gone"
    best = min(c["score"] for c in view["cells"] if c["state"] == "done")
    assert view["best"] == best
    assert "score" not in view["columns"] and "test/cer" in view["columns"]


def test_runs_without_a_plan_are_an_experiment_too(own):
    view = client(own).get(api()).json()
    assert view["counts"] == {"done": 2}
    assert view["factors"] == ["encoder"]
    assert all(c["planned"] for c in view["cells"])


def test_a_run_that_no_plan_has_is_said(outputs, tmp_path):
    home = write_outputs(tmp_path, 12)
    factors = {"encoder": "gru", "clipping": "norm", "clipping.threshold": 1.0, "seed": 9}
    write_run(home / "by_hand", factors, random.Random(0))
    cells = {c["name"]: c for c in client(tmp_path).get(api(EXPERIMENT)).json()["cells"]}
    assert len(cells) == 13
    assert [n for n, c in cells.items() if not c["planned"]] == ["by_hand"]
    assert cells["by_hand"]["state"] == "done"


def test_curves_are_thinned_and_asked_for_by_any_key(outputs):
    home = outputs / EXPERIMENT
    run = _run(home).name
    get = client(outputs).get
    keys = get(api(EXPERIMENT, what=f"/keys?run={quote(run)}")).json()
    assert keys == {"keys": ["train/grad_norm", "train/loss", "val/loss", "val/wer"], "bad": {}}
    rows = [json.loads(line) for line in (home / run / "metrics.jsonl").read_text().splitlines()]
    wanted = [(r["seconds"], r["val/wer"]) for r in rows if "val/wer" in r]
    what = f"/curves?run={quote(run)}&key=val/wer&axis=seconds"
    curve = get(api(EXPERIMENT, what=what)).json()[run]
    np.testing.assert_allclose(list(zip(curve["x"], curve["y"], strict=True)), wanted, rtol=1e-4)
    few = get(api(EXPERIMENT, what=what + "&points=10")).json()[run]
    assert len(few["x"]) == 10 and few["n"] == 3
    assert few["low"][0] <= few["y"][0] <= few["high"][0]
    assert few["y"][0] == pytest.approx(np.mean([w for _, w in wanted[:3]]), rel=1e-4)
    assert get(api(EXPERIMENT, what=f"/curves?run={quote(run)}&key=no/such")).json() == {}


def test_a_run_with_everything(outputs):
    run = _run(outputs / EXPERIMENT)
    get = client(outputs).get
    page = get(api(EXPERIMENT, run.name)).json()
    assert page["row"]["state"] == "done" and page["splits"] == ["test"] and page["gradients"] and page["audio"]
    assert ["encoder.name", "bilstm"] in page["config"]
    assert page["notes"] == []
    gradients = get(api(EXPERIMENT, run.name, "/gradients")).json()
    record = gradients["record"]
    assert record["n_steps"] == 2000 and record["role"] == "limiter"
    assert len(record["curves"]["norm_before"]["x"]) <= 600
    assert len(record["layers"]["norms"]) == len(record["layers"]["names"]) == 6
    assert len(record["layers"]["norms"][0]) == len(record["layers"]["steps"]) == 40


def test_utterances_are_aligned_sorted_and_found(own):
    get = client(own).get
    page = get(api(run="r0", what="/utterances")).json()
    errors = [row["errors"] for row in page["rows"]]
    assert errors == sorted(errors, reverse=True) and page["total"] == 30
    marks = [mark for row in page["rows"] for mark, _, _ in row["pairs"]]
    assert set(marks) <= {"", "S", "D", "I"} and marks.count("") > 50
    words = [ref for _, ref, _ in page["rows"][0]["pairs"] if ref]
    source = {r["id"]: r for r in map(json.loads, (own / "x/r0/hyps.test.jsonl").read_text().splitlines())}
    assert words == source[page["rows"][0]["id"]]["ref"].split()
    one = get(api(run="r0", what="/utterances?find=utt0003")).json()
    assert [row["id"] for row in one["rows"]] == ["utt0003"]
    assert get(api(run="r0", what="/utterances?split=val")).status_code == 404
    assert get(api(run="r0", what="/utterances?order=evil")).status_code == 400


def test_two_runs_compared(own):
    from asr_lab.report.collect import collect
    from asr_lab.report.configurations import configurations

    found = client(own).get("/api/compare?a=x/r0&b=x/r1").json()
    assert [[k, a, b] for k, a, b, _ in found["config"]] == [["encoder.name", "bilstm", "gru"]]
    rates = found["rates"]
    rows = {r.factors["encoder"]: r for r in configurations(collect(own / "x"), rates["n_resamples"], 0.95, 0)}
    assert rates["a"] == pytest.approx(list(rows["bilstm"].wer)) and rates["b"] == pytest.approx(list(rows["gru"].wer))
    assert rates["delta"][0] == pytest.approx(rates["b"][0] - rates["a"][0])
    assert rates["delta"][1] <= rates["delta"][0] <= rates["delta"][2]
    assert rates["unit"] == "12 speakers"
    turned = client(own).get("/api/compare?a=x/r1&b=x/r0").json()["rates"]["delta"]
    assert turned == pytest.approx([-rates["delta"][0], -rates["delta"][2], -rates["delta"][1]])
    assert all(c["pairs"] != c["other"] for c in found["changed"]) and len(found["changed"]) > 3
    same = client(own).get("/api/compare?a=x/r0&b=x/r0").json()
    assert same["rates"]["identical"] and same["rates"]["tied"] and same["changed"] == same["config"] == []


def test_runs_on_other_test_sets_are_not_compared(own):
    path = own / "x/r1/hyps.test.jsonl"
    path.write_text("".join(path.read_text().splitlines(True)[:-1]))
    found = client(own).get("/api/compare?a=x/r0&b=x/r1").json()
    assert found["rates"] is None
    assert "different test sets" in found["notes"][0]


# --- sound -------------------------------------------------------------------------------------------------------


@pytest.fixture
def spoken(own) -> Path:
    """`own`, with a corpus elsewhere: a file of two channels with two utterances one after the other."""
    corpus = own.parent / "corpus"
    corpus.mkdir()
    t = np.arange(16000) / 8000
    sound = np.stack([0.5 * np.sin(2 * np.pi * 300 * t), 0.2 * np.sin(2 * np.pi * 900 * t)], 1)
    soundfile.write(corpus / "long.wav", sound, 8000)
    rows = [
        {"id": "utt0000", "audio_filepath": "long.wav", "duration": 0.5, "offset": 0.25, "channel": 1, "text": "a"},
        {"id": "utt0001", "audio_filepath": "gone.wav", "duration": 0.5, "text": "a"},
        {"id": "utt0002", "audio_filepath": "../secret.txt", "duration": 0.5, "text": "a"},
        {"id": "unheard", "audio_filepath": "long.wav", "duration": 2.0, "text": "a"},
    ]
    (corpus / "manifest.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (own.parent / "secret.txt").write_text("secret " * 100)
    for name in ("r0", "r1"):
        path = own / "x" / name / "result.json"
        data = {"data": {"digest": {}, "manifest": str(corpus / "manifest.jsonl")}}
        path.write_text(json.dumps(json.loads(path.read_text()) | data))
    return own


def test_an_utterance_is_heard_from_its_segment_and_channel(spoken):
    answer = client(spoken).get(api(run="r0", what="/audio?split=test&id=utt0000"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
    samples, rate = soundfile.read(io.BytesIO(answer.content))
    wanted, _ = soundfile.read(spoken.parent / "corpus/long.wav", start=2000, stop=6000)
    assert rate == 8000
    np.testing.assert_allclose(samples, wanted[:, 1], atol=1e-4)
    part = client(spoken).get(api(run="r0", what="/audio?id=utt0000"), headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, answer.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(answer.content)}"
    beyond = client(spoken).get(api(run="r0", what="/audio?id=utt0000"), headers={"range": "bytes=999999-"})
    assert beyond.status_code == 416


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("id=utt0001", "missing file"),
        ("id=utt0002", "not audio"),  # a manifest may name anything; only sound is ever sent
        ("id=utt0003", "no such utterance any more"),
        ("id=unheard", "no such thing"),  # in the manifest, but the run was not scored on it
        ("id=../corpus/long.wav", "no such thing"),
        ("split=../../x&id=utt0000", "no such thing"),
        ("split=val&id=utt0000", "no such thing"),
        ("path=/etc/passwd", "no such thing"),
    ],
)
def test_nothing_but_the_sound_of_a_scored_utterance(spoken, what, said):
    answer = client(spoken).get(api(run="r0", what=f"/audio?{what}"))
    assert answer.status_code == 404
    assert said in answer.json()["error"]
    assert str(spoken.parent) not in answer.text and "secret" not in answer.text


def test_sound_can_be_switched_off(spoken):
    off = client(spoken, with_audio=False)
    assert off.get(api(run="r0", what="/audio?id=utt0000")).status_code == 404
    assert off.get(api(run="r0")).json()["audio"] is False


# --- who is answered ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_read_only(outputs, method):
    for path in ("/", "/api/experiments", "/static/style.css"):
        assert client(outputs).request(method, path).status_code == 405


def test_head_is_get_without_the_body(outputs):
    for path in ("/", "/api/experiments", "/static/style.css"):
        answer = client(outputs).head(path)
        assert answer.status_code == 200 and answer.content == b""


@pytest.mark.parametrize("path", ["/", "/api/experiments", "/static/js/main.js", "/nothing", "/api/experiments/none"])
def test_every_answer_says_what_a_browser_may_do(outputs, path):
    headers = client(outputs).get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert not [h for h in headers if h.startswith("access-control")]
    assert "no-" in headers["cache-control"] or path == "/nothing"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "localhost.", "10.0.0.1:8642"])
def test_a_name_that_was_made_to_point_here_is_refused(outputs, host):
    assert client(outputs).get("/api/experiments", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8642", "localhost:1", "LOCALHOST", "[::1]:8642"])
def test_this_machine_by_its_names(outputs, host):
    assert client(outputs).get("/api/experiments", headers={"host": host}).status_code == 200


def test_a_page_of_another_site_is_refused(outputs):
    ask = client(outputs).get
    cross = {"sec-fetch-site": "cross-site"}
    assert ask("/api/experiments", headers=cross | {"sec-fetch-mode": "no-cors"}).status_code == 403
    assert ask("/", headers=cross | {"sec-fetch-mode": "navigate"}).status_code == 200


def test_without_the_token_nothing_is_given(outputs):
    locked = client(outputs, hosts=None, token="correct horse")
    for path in ("/", "/api/experiments", "/static/js/main.js"):
        assert locked.get(path).status_code == 401
        assert locked.get(path, headers={"authorization": "Bearer wrong"}).status_code == 401
        assert locked.get(path + "?token=wrong").status_code == 401
        assert locked.get(path, headers={"authorization": "Bearer correct horse"}).status_code == 200
    assert locked.get("/", headers={"host": "anything.example", "authorization": "bearer correct horse"}).is_success


def test_the_token_is_exchanged_for_a_cookie(outputs):
    locked = client(outputs, hosts=None, token="correct horse")
    answer = locked.get("/?token=correct%20horse&x=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?x=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "correct" not in cookie
    assert locked.get("/api/experiments").status_code == 200  # the client keeps cookies as a browser does
    assert client(outputs, hosts=None, token="another one").get("/", headers={"cookie": cookie}).status_code == 401
    away = client(outputs, hosts=None, token="correct horse").get("/%2fevil.example/?token=correct%20horse")
    assert away.headers["location"] == "/evil.example/"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2f..%2fpyproject.toml",
        "/static//etc/passwd",
        "/api/experiments/%2e%2e",
        "/api/experiments/..%2f..%2fetc",
        "/api/experiments/%2fetc",
        "/api/experiments/x/runs/%2e%2e%2f%2e%2e",
        "/api/experiments/x/runs/r0%00",
        "/api/experiments/x/runs/" + "a" * 5000,
        "/api/experiments/.hidden",
        "/api/experiments/x/runs/r0/utterances?split=../../secret",
        "/api/experiments/x/curves?run=../../..&key=a",
        "/api/compare?a=../../etc&b=x/r0",
        "/api/compare?a=x/../..&b=x/r0",
    ],
)
def test_no_path_leads_out(own, path):
    (own.parent / "hyps.secret.jsonl").write_text('{"id": "a", "ref": "secret", "hyp": "secret"}\n')
    (own / ".hidden").mkdir()
    answer = client(own).get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text and "secret" not in answer.text


def test_paths_as_they_come_over_the_wire(served):
    """A client library tidies paths up; this does not."""
    for path in (
        "/static/../app.py",
        "/../../etc/passwd",
        "/static/..%2f..%2fapp.py",
        "//etc/passwd",
        "/api/experiments/..",
        f"/api/experiments/{EXPERIMENT}/runs/..",
    ):
        connection = http.client.HTTPConnection("127.0.0.1", served[1], timeout=10)
        connection.putrequest("GET", path)
        connection.endheaders()
        assert connection.getresponse().status == 404, path
        connection.close()


def test_links_that_lead_out_are_not_followed(own):
    secret = own.parent / "secret"
    write_run(
        secret / "run",
        {"encoder": "bilstm", "clipping": "none", "clipping.threshold": 1.0, "seed": 7},
        random.Random(0),
    )
    (secret / "words.jsonl").write_text(
        '{"id": "a", "ref": "secret words", "hyp": "secret", "step": 1, "val/wer": 0.123}\n'
    )
    (secret / "sweep.json").write_text('{"experiment": "secret", "cells": [{"name": "r0", "factors": {}}], "axes": {}}')
    (own / "linked").symlink_to(secret)
    (own / "x" / "out").symlink_to(secret / "run")
    (own / "x" / "inside").symlink_to(own / "x" / "r0")  # this one may be
    run = own / "x" / "r1"
    for name in ("hyps.test.jsonl", "metrics.jsonl", "train.log", "config.yaml", "gradients.npz"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(secret / "words.jsonl")
    (run / "progress.json").symlink_to(secret / "words.jsonl")
    get = client(own).get
    assert [e["name"] for e in get("/api/experiments").json()["experiments"]] == ["x"]
    for path in (api("linked"), api(run="out"), api(run="r1", what="/utterances")):
        assert get(path).status_code == 404, path
    cells = {c["name"]: c for c in get(api()).json()["cells"]}
    assert set(cells) == {"r0", "r1", "inside"}
    assert cells["r1"]["state"] == "damaged" and "leads out" in cells["r1"]["reason"]
    said = [get(api(run="r1", what=w)).text for w in ("", "/gradients")]
    said += [get(api(what="/curves?run=r1&key=val/wer")).text, get("/api/compare?a=x/r0&b=x/r1").text]
    assert not any("secret" in text or "0.123" in text for text in said)
    (own / "x" / "sweep.json").symlink_to(secret / "sweep.json")
    view = client(own).get(api()).json()
    assert "sweep.json: leads out" in view["damage"][0]


# --- files that are damaged, half-written, or change --------------------------------------------------------------

JUNK = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b"\xff\xfe\x00",
    b'{"status": 3}',
    b"[" * 60_000,
    b'{"status": "done"}',
    b"NaN",
]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
@pytest.mark.parametrize("plan", [False, True])
def test_whatever_a_file_holds_the_pages_come(own, junk, plan):
    for name in ("result.json", "metrics.jsonl", "hyps.test.jsonl", "config.yaml", "gradients.npz", "findings.jsonl",
                 "progress.json", "train.log"):  # fmt: skip
        (own / "x" / "r0" / name).write_bytes(junk)
    (own / "x" / "r0" / ".lock").write_bytes(junk)
    if plan:
        (own / "x" / "sweep.json").write_bytes(junk)
        (own / "x" / "ledger").mkdir()
        (own / "x" / "ledger" / "a.jsonl").write_bytes(junk + b"\n" + junk)
    (own / "x" / "r0" / "forensics" / "step_1").mkdir(parents=True)
    (own / "x" / "r0" / "forensics" / "step_1" / "report.json").write_bytes(junk)
    get = client(own).get
    cells = {c["name"]: c for c in get(api()).json()["cells"]}
    assert cells["r1"]["state"] == "done"
    assert cells["r0"]["state"] == "damaged" and cells["r0"]["reason"]
    paths = [api(run="r0"), api(run="r0", what="/gradients"), api(what="/keys?run=r0")]
    paths += [api(what="/curves?run=r0&run=r1&key=val/wer"), "/api/compare?a=x/r0&b=x/r1", "/api/experiments"]
    for path in paths:
        answer = get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert str(own) not in answer.text
    assert get(api(run="r0", what="/utterances")).status_code == 200
    assert get(api(run="r0", what="/audio?id=a")).status_code == 404


def test_plans_of_any_shape(own):
    odd = [
        {"cells": 3},
        {"cells": [3]},
        {"cells": [{}]},
        {"axes": []},
        {"experiment": "x", "cells": [{"name": "../..", "factors": {}}]},
    ]
    for plan in odd:
        (own / "x" / "sweep.json").write_text(json.dumps(plan))
        view = client(own).get(api()).json()
        assert {"r0", "r1"} <= {c["name"] for c in view["cells"]}, plan


def test_numbers_that_json_has_not(own):
    with open(own / "x/r0/metrics.jsonl", "a") as f:
        f.write('{"step": 1300, "epoch": 30, "seconds": 200, "val/wer": NaN}\n{"step": 1320, "val/wer": Infinity}\n')
    text = client(own).get(api(what="/curves?run=r0&key=val/wer&points=1000")).text
    assert json.loads(text, parse_constant=pytest.fail)["r0"]["y"][-2:] == [None, None]


def test_names_and_texts_are_data(own):
    """They come as JSON; that a page shows them as text, tests/slow/test_dashboard_browser.py sees."""
    name = "<b>&amp;'\""
    result = write_run(own / "x" / name, FACTORS, random.Random(0))
    (own / "x" / name / "result.json").write_text(json.dumps(result | {"factors": {"encoder": HOSTILE}}))
    view = client(own).get(api())
    assert view.headers["content-type"] == "application/json"
    assert HOSTILE in {c["factors"].get("encoder") for c in view.json()["cells"]}
    assert client(own).get(api(run=name)).json()["row"]["state"] == "done"


def test_a_folder_whose_name_is_no_text_is_left_out(own):
    os.mkdir(os.fsencode(own / "x") + b"/\xff\xfe")
    assert client(own).get(api()).status_code == 200


def test_answers_are_only_sent_when_they_changed(own):
    ask = client(own)
    of_run = [api(run="r0"), api(run="r0", what="/utterances"), api(run="r0", what="/gradients")]
    others = ["/api/experiments", api(), api(what="/curves?run=r0&key=val/wer"), "/api/compare?a=x/r0&b=x/r1"]
    for path in of_run + others:
        first = ask.get(path)
        again = ask.get(path, headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b""), path
    path = api(what="/curves?run=r0&key=val/wer")
    mark = ask.get(path).headers["etag"]
    with open(own / "x/r0/metrics.jsonl", "a") as f:
        f.write('{"step": 1300, "epoch": 30, "seconds": 200, "val/wer": 0.05}\n')
    new = ask.get(path, headers={"if-none-match": mark})
    assert new.status_code == 200 and new.json()["r0"]["x"][-1] == 1300


def test_a_view_follows_the_files(own, monkeypatch):
    monkeypatch.setattr(answers, "EVERY_S", 0.0)
    ask = client(own)
    assert ask.get(api()).json()["counts"] == {"done": 2}
    (own / "x/r0/result.json").write_text('{"status": "fai')
    until = time.monotonic() + 5
    while ask.get(api()).json()["counts"] != {"done": 1, "damaged": 1}:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_metrics_are_read_as_they_grow(tmp_path, monkeypatch):
    path, columns = tmp_path / "metrics.jsonl", Columns()
    path.write_text('{"step": 0, "epoch": 0, "seconds": 1, "a": 1}\n{"step": 1, "a"')
    columns.read(path)
    assert columns.points("a", "step")[0].tolist() == [0]
    with open(path, "a") as f:
        f.write(': 2}\nnonsense\n{"step": 2, "b": true, "a": 3}\n')
    at = columns.offset
    taken = []
    monkeypatch.setattr(columns, "_take", lambda line, take=columns._take: (taken.append(line), take(line)))
    columns.read(path)
    assert len(taken) == 3 and columns.offset > at  # only what was new
    assert columns.points("a", "step")[1].tolist() == [1, 2, 3]
    assert columns.n_bad == 1 and "b" not in columns.values
    columns.read(path)
    assert len(taken) == 3
    other = tmp_path / "other"
    other.write_text('{"step": 7, "a": 9}\n')
    other.replace(path)  # a resumed run writes it anew
    columns.read(path)
    assert columns.points("a", "step")[0].tolist() == [7]


def test_rows_taken_together_are_those_taken_one_by_one(tmp_path):
    rng = random.Random(0)
    rows = []
    for i in range(300):
        keys = rng.sample(["a", "b", "c", "val/wer"], rng.randint(0, 4))
        values = {k: rng.choice([rng.random(), rng.randint(0, 9), float("nan"), -1e-300]) for k in keys}
        rows.append({"step": i, "epoch": i // 9, "seconds": i / 3} | values)
    text = "".join(json.dumps(r) + "\n" for r in [*rows, {"step": 250, "test/wer": 0.5}])
    (tmp_path / "m").write_text(text)
    together, single = Columns(), Columns()
    together.read(tmp_path / "m")
    single.inode = os.stat(tmp_path / "m").st_ino
    for line in text.encode().splitlines():
        single._take(line)
    assert set(together.values) == set(single.values) == {"a", "b", "c", "val/wer", "test/wer"}
    for key in single.values:
        (xs, ys), (us, vs) = together.points(key, "seconds"), single.points(key, "seconds")
        np.testing.assert_array_equal(ys[np.argsort(xs)], vs[np.argsort(us)])
    assert together.points("val/wer", "step")[0].max() < 250


def test_scoring_is_no_point_of_the_curve(tmp_path):
    path, columns = tmp_path / "metrics.jsonl", Columns()
    rows = [
        {"step": 9, "val/wer": 0.5},
        {"step": 19, "val/wer": 0.4},
        {"step": 20, "val/wer": 0.3},
        {"step": 20, "test/wer": 0.2},
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    columns.read(path)
    assert columns.points("val/wer", "step")[1].tolist() == [0.5, 0.4]
    assert columns.points("test/wer", "step")[1].tolist() == [0.2]


def test_thinned_curves_keep_their_mean_and_range():
    rng = np.random.default_rng(0)
    xs, ys = np.arange(10_001.0), rng.normal(size=10_001)
    ys[::7] = np.nan
    found = thin(xs, ys, 100)
    assert len(found["x"]) <= 100
    sizes = [101] * 99 + [10_001 - 99 * 101]
    for i in (0, 50, 99):
        part = ys[101 * i : 101 * i + sizes[i]]
        assert found["y"][i] == pytest.approx(np.nanmean(part), rel=1e-3)
        assert (found["low"][i], found["high"][i]) == pytest.approx((np.nanmin(part), np.nanmax(part)), rel=1e-3)
    assert thin(np.zeros(0), np.zeros(0), 10) == {"x": [], "y": []}
    assert thin(np.array([2.0, 1.0]), np.array([np.nan, 5.0]), 10) == {"x": [1, 2], "y": [5, None]}


def test_a_file_is_read_once_for_many(own, monkeypatch):
    board = Dashboard(own)
    reads = []
    monkeypatch.setattr("asr_lab.dashboard.utterances.Hypotheses.__init__", _slow_reading(reads))
    threads = [threading.Thread(target=board.utterances.hypotheses, args=(own / "x/r0", "test")) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert reads == ["hyps.test.jsonl"]


def _slow_reading(reads):
    def init(self, path):
        reads.append(path.name)
        time.sleep(0.1)
        self.rows, self.n_bad, self.by_id = [], 0, {}

    return init


def test_a_slow_file_holds_nobody_up(own, monkeypatch):
    def slow(self, path):
        time.sleep(1.0)
        self.rows, self.n_bad, self.by_id = [], 0, {}

    monkeypatch.setattr("asr_lab.dashboard.utterances.Hypotheses.__init__", slow)
    ask = client(own)
    ask.get("/api/experiments")
    waiting = threading.Thread(target=ask.get, args=(api(run="r0", what="/utterances"),))
    waiting.start()
    time.sleep(0.1)
    start = time.monotonic()
    assert ask.get(api()).status_code == 200
    assert time.monotonic() - start < 0.7
    waiting.join()


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(outputs):
    """The real command: (process, port, first line)."""
    command = [sys.executable, "-m", "asr_lab", "dashboard", "--port", "0", "--outputs", str(outputs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    port = int(re.search(r"127\.0\.0\.1:(\d+)/", line)[1])
    yield process, port, line
    process.kill()


def test_the_command_serves_and_ends(served):
    process, port, line = served
    assert "token" not in line and "Ctrl-C" in line
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/api/experiments")
    answer = connection.getresponse()
    assert answer.status == 200 and json.loads(answer.read())["experiments"]
    assert answer.getheader("server") is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert (process.returncode, out.strip(), err) == (0, "ended", "")


def test_a_port_that_is_taken(tmp_path, asr_lab):
    (tmp_path / "outputs").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = only_line(asr_lab("dashboard", "--port", str(port), cwd=tmp_path))
        assert f"port {port} is taken" in line and "is free: --port" in line


def test_the_next_port_is_tried(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr("asr_lab.dashboard.serve.PORT", other.getsockname()[1])
        with bind("127.0.0.1", None) as found:
            assert other.getsockname()[1] < found.getsockname()[1] <= other.getsockname()[1] + 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--outputs", "nowhere"], "nowhere: no such folder"),
        (["--outputs", "file"], "file: is a file"),
        (["--token", "short"], "--token: at least 8 characters"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid"),
        (["--host", "203.0.113.7"], "--host 203.0.113.7"),
    ],
)
def test_what_a_person_can_mend(tmp_path, asr_lab, arguments, said):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "file").touch()
    assert said in only_line(asr_lab("dashboard", *arguments, cwd=tmp_path))


def test_anywhere_else_a_token_is_made(tmp_path, monkeypatch, capsys):
    import uvicorn

    from asr_lab.dashboard import serve

    apps = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: apps.append(self.config.app))
    serve.serve(tmp_path, "0.0.0.0", 0, None)
    token = re.search(r"\?token=(\S+)", capsys.readouterr().out)[1]
    assert len(token) >= 40
    ask = TestClient(apps[0], base_url="http://anything.example")
    assert ask.get("/api/experiments").status_code == 401
    assert ask.get("/api/experiments", headers={"authorization": f"Bearer {token}"}).status_code == 200


def test_loopback_by_its_names():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.8.8.8")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "")))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(AsrLabError, match="no such folder"):
        application(tmp_path / "nowhere")


# --- what it is made of -------------------------------------------------------------------------------------------


def test_it_imports_no_torch():
    assert not loaded_after("import asr_lab.dashboard.app, asr_lab.dashboard.serve, asr_lab.data.audio") & {
        "torch",
        "pytorch_lightning",
        "wandb",
    }


def test_it_imports_nothing_that_trains():
    for path in (SOURCE / "dashboard").glob("*.py"):
        assert not imports(path) & {"build", "train", "cli", "task", "evaluate", "callbacks"}, path


def test_the_front_end_needs_nothing_from_elsewhere():
    own = [p for p in STATIC.rglob("*") if p.suffix in (".js", ".css", ".html") and "vendor" not in p.parts]
    assert len(own) > 15
    for path in own:
        text = path.read_text()
        assert not re.search(r"https?://|//cdn|@import|url\(", text), path
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser", text
        ), path
        assert len(text.splitlines()) <= 270, path
    page = (STATIC / "index.html").read_text()
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
        assert (STATIC / address.removeprefix("/static/")).is_file(), address
    for path in own:
        for name in re.findall(r'from "(\.[^"]+)"', path.read_text()):
            assert (path.parent / name).is_file(), (path, name)


def test_uplot_is_whole_and_licensed():
    vendor = STATIC / "vendor" / "uplot"
    assert "MIT" in (vendor / "LICENSE").read_text()
    version = re.search(r"uPlot \(v([\d.]+)\)", (vendor / "uPlot.esm.js").read_text())[1]
    assert f"uPlot {version}" in (STATIC / "vendor" / "README.md").read_text()
