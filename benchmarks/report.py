"""What reading results costs: the report of many cells, the dashboard with many runs, the bootstrap beside others.

    python benchmarks/report.py [--cells 500] [--runs 1000] [--clients 20] [--rounds 5] [--json FILE]

The folders are those of synthetic_outputs.py: 200 points a curve, 130 utterances. Report: the whole command, start of
Python included, and its largest memory. Dashboard: of the server's own process; the clients are threads of another one,
each asks for something of a random run, reads the answer and rests half a second. Paint: Debian's
Chromium through playwright, where both are there. Bootstrap: one thread, processor time, 10,000 resamples; kaldialign
where it is installed, the time of its alignments taken off.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of numpy's products: before its import

import numpy as np
from rich.console import Console
from rich.table import Table

from asr_lab.environment import environment
from asr_lab.files import write_json
from asr_lab.report import stats
from page_clients import PAUSE_S, asked, get, painted, served
from synthetic_outputs import WORDS, write_outputs

CELLS, UTTERANCES, RESAMPLES = 50, 2600, 10_000  # of the grid that is resampled
LOOPED = 1000  # resamples that the plain loop makes; ten times as many take ten times as long
PAIRS_TIMED = 10  # pairs that kaldialign compares; all of the grid's take so many times as long


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    results: dict[str, Any] = {"about": {**environment(), "load": [round(load, 1)], "rounds": options.rounds}}
    results["bootstrap"] = bootstraps(options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        results["report"] = report(write_outputs(Path(folder) / "outputs", options.cells))
    with tempfile.TemporaryDirectory() as folder:
        results["dashboard"] = dashboard(write_outputs(Path(folder) / "outputs", options.runs), options)
    results["about"]["load"].append(round(os.getloadavg()[0], 1))
    show(results, Console())
    if options.json:
        write_json(options.json, results)


def report(folder: Path) -> dict[str, float]:
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "asr_lab", "report", str(folder)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"asr-lab report: exit status {process.returncode}")
    n = sum(1 for _ in folder.glob("*/result.json"))
    page = (folder / "report.html").stat().st_size / 1e6
    return {"cells": n, "s": time.monotonic() - start, "peak_mib": used.ru_maxrss / 1024, "page_mb": page}


def dashboard(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    cells = sorted(p.parent.name for p in folder.glob("*/hyps.test.jsonl"))
    with served(folder.parent) as (port, pid):
        first = time.monotonic()
        get(port, f"/api/experiments/{folder.name}")
        cold = time.monotonic() - first
        paints = painted(f"http://127.0.0.1:{port}/#/e/{folder.name}", options.rounds)
        times = asked(port, folder.name, cells, options.clients)
        peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    together = [t for each in times.values() for t in each]
    return {
        "runs": options.runs,
        "clients": options.clients,
        "pause_s": PAUSE_S,
        "first_answer_s": cold,
        "paint_s": paints,
        "requests": len(together),
        "p50_ms": 1000 * statistics.median(together),
        "p95_ms": 1000 * _quantile(together, 0.95),
        "p95_ms_of": {kind: 1000 * _quantile(each, 0.95) for kind, each in times.items()},
        "peak_mib": int(peak.split()[1]) / 1024,
    }


def bootstraps(rounds: int) -> dict[str, Any]:
    """Processor seconds of one cell's interval, of all cells' of a grid, and of those of all differences too."""
    rng = np.random.default_rng(0)
    references = [[WORDS[k] for k in rng.integers(len(WORDS), size=rng.integers(4, 21))] for _ in range(UTTERANCES)]
    hyps = [[[w for w in ref if rng.random() > 0.1] for ref in references] for _ in range(PAIRS_TIMED)]
    words = np.array([len(ref) for ref in references])
    errors = np.stack([words - [len(h) for h in hyps[k % PAIRS_TIMED]] for k in range(CELLS)])

    def differences() -> None:
        rates = stats.bootstrap(errors, words, RESAMPLES)
        for i, j in combinations(range(CELLS), 2):
            stats.interval(0.0, rates[i] - rates[j])

    ours = {
        "one cell": _fastest(lambda: stats.bootstrap(errors[0], words, RESAMPLES), rounds),
        "grid": _fastest(lambda: stats.bootstrap(errors, words, RESAMPLES), rounds),
        "differences": _fastest(differences, 1),
    }
    n_pairs = CELLS * (CELLS - 1) // 2
    loop = _fastest(lambda: _plain(errors[0].tolist(), words.tolist()), 3) * RESAMPLES / LOOPED
    found = {"ours": ours, "plain": {"one cell": loop, "grid": CELLS * loop, "differences": CELLS * loop}}
    try:
        from kaldialign import bootstrap_wer_ci
    except ImportError:
        return found
    one = _fastest(lambda: bootstrap_wer_ci(references, hyps[0]), rounds)
    one -= _fastest(lambda: bootstrap_wer_ci(references, hyps[0], replications=1), rounds)
    pairs = list(combinations(range(PAIRS_TIMED), 2))[:PAIRS_TIMED]
    both = sum(_fastest(lambda k=k: bootstrap_wer_ci(references, hyps[k[0]], hyps[k[1]]), 1) for k in pairs)
    both -= sum(
        _fastest(lambda k=k: bootstrap_wer_ci(references, hyps[k[0]], hyps[k[1]], replications=1), 1) for k in pairs
    )
    return found | {"kaldialign": {"one cell": one, "grid": CELLS * one, "differences": n_pairs * both / len(pairs)}}


def _plain(errors: list[int], words: list[int]) -> list[float]:
    """The bootstrap as one writes it without numpy."""
    rng, units, rates = random.Random(0), list(zip(errors, words, strict=True)), []
    for _ in range(LOOPED):
        drawn = rng.choices(units, k=len(units))
        rates.append(sum(e for e, _ in drawn) / sum(n for _, n in drawn))
    return rates


def _fastest(work: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def show(results: dict[str, Any], console: Console) -> None:
    table = Table("what", "how much", "wanted")
    made, page, times = results["report"], results["dashboard"], results["bootstrap"]
    table.add_row(f"report of {made['cells']} cells", f"{made['s']:.1f} s", "< 20 s")
    table.add_row("its memory", f"{made['peak_mib']:.0f} MiB", "< 1 GB")
    table.add_row("its page", f"{made['page_mb']:.2f} MB", "< 2 MB")
    paint = page["paint_s"] if isinstance(page["paint_s"], str) else f"{statistics.median(page['paint_s']):.2f} s"
    table.add_row(f"first paint with {page['runs']} runs", paint, "< 1 s")
    table.add_row("first answer after the start", f"{page['first_answer_s']:.2f} s", "")
    said = f"{page['p50_ms']:.0f} ms, 95 % below {page['p95_ms']:.0f}"
    table.add_row(f"answers, {page['clients']} clients", said, "95 % < 100 ms")
    for kind, ms in page["p95_ms_of"].items():
        table.add_row(f"  {kind}", f"95 % below {ms:.0f} ms", "")
    table.add_row("memory of the server", f"{page['peak_mib']:.0f} MiB", "")
    for what in times["ours"]:
        beside = [f"{times[n][what] / times['ours'][what]:,.1f}x {n}" for n in ("plain", "kaldialign") if n in times]
        table.add_row(f"bootstrap, {what}", f"{times['ours'][what]:.2f} s: {', '.join(beside)}", ">= 20x")
    console.print(table)


if __name__ == "__main__":
    main()
