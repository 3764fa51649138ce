"""How fast the dashboard is: first paint of a thousand runs in Chromium, answers under 20 clients.

    python benchmarks/dashboard.py [--runs 1000] [--clients 20] [--seconds 10]

The outputs folder is that of tests/outputs.py: cells in all states, 12 of them running, whose progress.json is
replaced once a second meanwhile, so that the answers change. Prints JSON. First paint is the browser's own first
contentful paint of the experiment's page (Chromium's performance timeline), and when the first cells were there;
cold is a server that has just begun.
"""

import argparse
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.outputs import write_gradients, write_outputs

EXPERIMENT = "encoder_x_clipping"
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
CELLS = "() => document.querySelectorAll('.matrix .cell').length > 20 ? performance.now() : 0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = write_outputs(Path(folder) / "outputs", args.runs)
        write_gradients(runs(home)[0])
        process, url = serve(home.parent)
        try:
            found = {"runs": args.runs, "first_paint_ms": paints(url)}
            stop = threading.Event()
            threading.Thread(target=go_on, args=(home, stop), daemon=True).start()
            found["answers"] = load(url, home, args.clients, args.seconds)
            stop.set()
        finally:
            process.kill()
    print(json.dumps(found, indent=1))


def runs(home: Path) -> list[Path]:
    return sorted(p.parent for p in home.glob("*/hyps.test.jsonl"))


def serve(outputs: Path) -> tuple[subprocess.Popen, str]:
    command = [sys.executable, "-m", "asr_lab", "dashboard", "--port", "0", "--outputs", str(outputs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found, "the server did not start"
    return process, found[0].rstrip("/")


def paints(url: str) -> dict[str, dict[str, float]] | None:
    """{"cold" and "warm": {"paint", "cells"}} in ms since the navigation began; None without a browser."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return None
    from playwright.sync_api import sync_playwright

    found = {}
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        browser.new_page().goto("about:blank")  # the browser's own start is not ours
        for name in ("cold", "warm"):
            page = browser.new_page()
            page.goto(f"{url}/#/e/{EXPERIMENT}")
            while not (cells := page.evaluate(CELLS)):
                page.wait_for_timeout(5)
            found[name] = {"paint": round(page.evaluate(PAINT) or cells), "cells": round(cells)}
            page.close()
        browser.close()
    return found


def go_on(home: Path, stop: threading.Event) -> None:
    """The running cells make progress."""
    running = [p for p in home.glob("*/progress.json") if (p.parent / ".lock").exists()]
    while not stop.wait(1.0):
        for path in running:
            row = json.loads(path.read_text())
            row["step"] = min(row["step"] + 1, row["steps"])
            path.with_suffix(".tmp").write_text(json.dumps(row))
            path.with_suffix(".tmp").replace(path)


def load(url: str, home: Path, n_clients: int, seconds: float) -> dict[str, dict[str, float]]:
    """Times of answers in ms by kind: each client asks three times a second, a page does every two seconds."""
    names = [quote(p.name, safe="") for p in runs(home)]
    one = f"/api/experiments/{EXPERIMENT}"
    some = "&".join(f"run={n}" for n in names[:30])
    kinds = {
        "list": lambda r: "/api/experiments",
        "experiment": lambda r: one,
        "curves of 30": lambda r: f"{one}/curves?{some}&key=val/wer&points=300",
        "curve of one": lambda r: f"{one}/curves?run={r.choice(names)}&key={r.choice(('val/wer', 'train/loss'))}",
        "run": lambda r: f"{one}/runs/{r.choice(names)}",
        "utterances": lambda r: f"{one}/runs/{r.choice(names)}/utterances",
        "gradients": lambda r: f"{one}/runs/{names[0]}/gradients",
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    end = time.monotonic() + seconds

    def client(seed: int) -> None:
        r = random.Random(seed)
        marks: dict[str, str] = {}
        while time.monotonic() < end:
            kind = r.choice(list(kinds))
            path = kinds[kind](r)
            request = urllib.request.Request(url + path, headers={"accept-encoding": "gzip"})
            if path in marks:
                request.add_header("if-none-match", marks[path])
            start = time.monotonic()
            try:
                with urllib.request.urlopen(request) as answer:
                    answer.read()
                    marks[path] = answer.headers["etag"]
            except urllib.error.HTTPError as error:
                if error.code != 304:
                    raise
            took = time.monotonic() - start
            times[kind].append(1000 * took)
            time.sleep(0.2 + 0.2 * r.random())

    threads = [threading.Thread(target=client, args=(i,)) for i in range(n_clients)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    times["all"] = [x for found in times.values() for x in found]
    return {kind: summary(found) for kind, found in times.items() if len(found) > 1}


def summary(found: list[float]) -> dict[str, float]:
    parts = statistics.quantiles(found, n=100)
    return {"n": len(found), "median": round(parts[49], 1), "p95": round(parts[94], 1), "most": round(max(found), 1)}


if __name__ == "__main__":
    main()
