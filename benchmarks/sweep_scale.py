"""Sweeps of many cells: planning, status, and the ledger with many writers.

    python benchmarks/sweep_scale.py [--cells 100000] [--finished 10000] [--writers 32] [--json FILE]

Planning is `asr-lab plan` without measuring steps, to the list of all cells; its memory is the process's largest.
Status is the whole command, start of Python included. A ledger's append ends when the line is on the disk.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from asr_lab.environment import environment
from asr_lab.files import write_json
from asr_lab.ledger import Ledger

EXPERIMENT = """
defaults:
  - config
  - override logger: none
  - _self_
experiment: scale
grid:
  encoder: [rnn, lstm, bilstm, gru, conformer]
  clipping: [none, norm, value, agc]
  sample: {n: SAMPLES, axes: {optimizer.lr: {log: [1e-4, 1e-2]}, optimizer.weight_decay: {log: [1e-4, 1e-1]}}}
  repeat: 5
"""
PLAN = """
import time, sys, json
from asr_lab.sweep.opened import plan_of
start = time.monotonic()
plan = plan_of(["--config-dir", sys.argv[1], "--config-name", "scale"], [])
made = time.monotonic() - start
plan.save()
whole = time.monotonic() - start
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
rss = int(peak.split()[1]) / 1024
print(json.dumps({"cells": len(plan.cells), "plan_s": made, "written_s": whole, "peak_mib": rss}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--finished", type=int, default=10_000)
    parser.add_argument("--writers", type=int, default=32)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        results = {
            "about": {**environment(), "load": [round(load, 1)]},
            "planning": planning(Path(folder) / "plan", options.cells),
            "status": status(Path(folder) / "status", options.finished),
            "ledger": ledger(Path(folder) / "ledger", options.writers),
        }
    show(results)
    if options.json:
        write_json(options.json, results)


def planning(here: Path, n: int) -> dict:
    here.mkdir()
    (here / "scale.yaml").write_text(EXPERIMENT.replace("SAMPLES", str(n // 100)))
    done = subprocess.run(
        [sys.executable, "-c", PLAN, str(here)], cwd=here, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout)


def status(here: Path, n: int) -> dict:
    folder = here / "outputs" / "many"
    cells = [
        {"name": f"cell-{i}", "fingerprint": f"{i:016x}", "factors": {"encoder": f"e{i // 100}", "seed": i % 100}}
        for i in range(n)
    ]
    result = {
        "status": "done",
        "fingerprint": "",
        "score": "wer",
        "metrics": {"test/wer": 0.5},
        "seconds": {"total": 9.0},
    }
    for cell in cells:
        (folder / cell["name"]).mkdir(parents=True)
        (folder / cell["name"] / "result.json").write_text(json.dumps(result | cell))
    axes = {"encoder": sorted({c["factors"]["encoder"] for c in cells}), "seed": list(range(100))}
    write_json(folder / "sweep.json", {"experiment": "many", "question": "", "axes": axes, "cells": cells})
    writer = Ledger(folder)
    for state, more in (("planned", {}), ("running", {}), ("done", {"metric": "wer", "score": 0.5, "seconds": 9.0})):
        writer.extend((c["name"], state, "", more) for c in cells)
    times = []
    for _ in range(5):
        start = time.monotonic()
        command = [sys.executable, "-m", "asr_lab", "status", "many", "--json"]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
        times.append(time.monotonic() - start)
        assert json.loads(done.stdout)["done"] == n
    return {"cells": n, "s": statistics.median(times)}


def ledger(here: Path, n_writers: int, n_lines: int = 100) -> dict:
    context = multiprocessing.get_context("forkserver")
    with context.Pool(n_writers) as pool:
        times = [t for each in pool.starmap(_append, [(here, n_lines)] * n_writers, chunksize=1) for t in each]
    ranked = sorted(times)
    return {
        "writers": n_writers,
        "median_ms": 1000 * statistics.median(times),
        "p95_ms": 1000 * ranked[int(0.95 * len(ranked))],
    }


def _append(here: Path, n: int) -> list[float]:
    writer = Ledger(here)
    times = []
    for i in range(n):
        start = time.perf_counter()
        writer.append(f"cell-{i}", "running")
        times.append(time.perf_counter() - start)
    return times


def show(results: dict) -> None:
    table = Table("what", "how much", "wanted")
    plan, seen, lines = results["planning"], results["status"], results["ledger"]
    table.add_row(f"planning {plan['cells']} cells", f"{plan['plan_s']:.1f} s", "< 20 s")
    table.add_row("and writing the plan", f"{plan['written_s']:.1f} s", "")
    table.add_row("its memory", f"{plan['peak_mib']:.0f} MiB", "< 1 GB")
    table.add_row(f"status of {seen['cells']} cells", f"{seen['s']:.2f} s", "< 2 s")
    said = f"{lines['median_ms']:.2f} ms, 95 % below {lines['p95_ms']:.2f}"
    table.add_row(f"append, {lines['writers']} writers", said, "< 5 ms")
    Console().print(table)


if __name__ == "__main__":
    main()
