"""A dashboard that is served, clients that ask it for answers, and a browser that opens it; for report.py.

Run as a program it is the process of the clients: a job comes in as JSON, the seconds of their answers go out.
"""

import http.client
import json
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

PAUSE_S = 0.5  # that a client rests after an answer; a page does so for two seconds, and asks for less that is new
ASKED_S = 15  # so long do they ask


@contextmanager
def served(outputs: Path) -> Iterator[tuple[int, int]]:
    """The port and process id of a dashboard over `outputs`."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "asr_lab", "dashboard", "--port", str(port), "--outputs", str(outputs)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while True:
            if server.poll() is not None:
                raise SystemExit(f"asr-lab dashboard: exit status {server.returncode}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port, server.pid
    finally:
        server.terminate()
        server.wait()


def asked(port: int, experiment: str, cells: list[str], n_clients: int) -> dict[str, list[float]]:
    """Seconds of each answer, by what was asked for; the clients have a process of their own."""
    job = json.dumps({"port": port, "experiment": experiment, "cells": cells, "clients": n_clients})
    done = subprocess.run(
        [sys.executable, __file__, "--as-clients"], input=job, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def main() -> None:
    job = json.load(sys.stdin)
    until = time.monotonic() + ASKED_S
    with ThreadPoolExecutor(job["clients"]) as pool:
        what = (job["port"], job["experiment"], job["cells"], until)
        asking = [pool.submit(_client, n, *what) for n in range(job["clients"])]
    times: dict[str, list[float]] = {}
    for kind, seconds in (answer for client in asking for answer in client.result()):
        times.setdefault(kind, []).append(seconds)
    print(json.dumps(times))


def _client(number: int, port: int, experiment: str, cells: list[str], until: float) -> list[tuple[str, float]]:
    """(what was asked for, seconds to its answer) until a time of the clock."""
    rng, connection = random.Random(number), http.client.HTTPConnection("127.0.0.1", port)
    found = []
    while time.monotonic() < until:
        kind, path = _something(rng, experiment, cells)
        start = time.perf_counter()
        _get(connection, path)
        found.append((kind, time.perf_counter() - start))
        time.sleep(PAUSE_S)
    return found


def _something(rng: random.Random, experiment: str, cells: list[str]) -> tuple[str, str]:
    """(its name, the address): mostly what a page asks for again and again while a sweep runs."""
    base = f"/api/experiments/{quote(experiment)}"
    run, other = (quote(name, safe="") for name in rng.sample(cells, 2))
    some = "&".join(f"run={quote(name, safe='')}" for name in rng.sample(cells, min(20, len(cells))))
    kinds = {
        "experiments": "/api/experiments",
        "experiment": base,
        "curves of 20 runs": f"{base}/curves?{some}&key=val/wer",
        "run": f"{base}/runs/{run}",
        "utterances": f"{base}/runs/{run}/utterances?split=test",
        "comparison": f"/api/compare?a={experiment}/{run}&b={experiment}/{other}",
    }
    name = rng.choices(list(kinds), weights=[2, 4, 4, 4, 4, 1])[0]
    return name, kinds[name]


def _get(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path, headers={"accept-encoding": "gzip"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path}: status {answer.status}, {body[:200]!r}")


def get(port: int, path: str) -> None:
    _get(http.client.HTTPConnection("127.0.0.1", port), path)


def painted(address: str, rounds: int) -> list[float] | str:
    """Seconds to the first contentful paint of each new visit, or why there are none."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return "no playwright"
    if chromium is None:
        return "no chromium"
    found = []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(rounds):
            page = browser.new_context().new_page()
            page.goto(address)
            paint = "performance.getEntriesByName('first-contentful-paint')[0]"
            page.wait_for_function(f"{paint} !== undefined")
            found.append(page.evaluate(f"{paint}.startTime") / 1000)
            page.close()
        browser.close()
    return found


if __name__ == "__main__":
    main()
