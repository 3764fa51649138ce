"""What a sweep costs beside its cells: our launcher against Hydra's own, running the same small cells.

    python benchmarks/sweep.py [--rounds 3] [--epochs 10] [--json FILE]

Twelve cells (two encoders, two kinds of clipping, three seeds) on a corpus of noise, through `hydra/launcher=local`,
the joblib launcher with as many jobs, and Hydra's basic one, in turn, each a process from start to end with a fresh
folder. Threads are left to `runtime.n_threads=auto`: the one cell of the basic launcher has all cores.
Wall-clock seconds; medians of the rounds. The losses of the cells are compared too: all three must give the
same, within a hundredth, for more threads add up in another order.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table

from asr_lab.environment import environment
from asr_lab.files import write_json, write_jsonl

RATE = 8000
AXES = ["encoder=rnn,bilstm", "clipping=none,norm", "seed=1,2,3"]
WAYS = {
    "local": ["hydra/launcher=local", "hydra.launcher.n_jobs={n}"],
    "joblib": ["hydra/sweeper=basic", "hydra/launcher=joblib", "hydra.launcher.n_jobs={n}"],
    "basic": ["hydra/sweeper=basic", "hydra/launcher=basic"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10, help="of each cell")
    parser.add_argument("--jobs", type=int, default=2, help="cells at once, of local and joblib")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        manifest = corpus(Path(folder) / "corpus")
        for n in range(options.rounds):
            scores = {}
            for way in WAYS:
                here = Path(folder) / f"{way}{n}"
                here.mkdir()
                seconds, scores[way] = sweep(way, here, manifest, options)
                times[way].append(seconds)
            for other in ("joblib", "basic"):  # the number of threads changes the last digits
                for cell, loss in scores["local"].items():
                    assert math.isclose(scores[other][cell], loss, rel_tol=1e-2), f"{other}: {cell} differs"
    results = {
        "about": {**environment(), "load": [round(load, 1), round(os.getloadavg()[0], 1)], "rounds": options.rounds},
        "cells": 12,
        "epochs": options.epochs,
        "jobs": options.jobs,
        "rows": {
            way: {
                "s": round(statistics.median(t), 2),
                "all_s": [round(x, 2) for x in t],
                "x_local": round(statistics.median(a / b for a, b in zip(t, times["local"], strict=True)), 2),
            }
            for way, t in times.items()
        },
    }
    show(results)
    if options.json:
        write_json(options.json, results)


def corpus(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = []
    for split, n in (("train", 24), ("val", 6), ("test", 6)):
        for i in range(n):
            text = "".join(rng.choice(list("abcd"), 4))
            soundfile.write(folder / f"{split}{i}.wav", 0.1 * rng.standard_normal(RATE), RATE)
            rows.append({"audio_filepath": f"{split}{i}.wav", "duration": 1.0, "text": text, "split": split})
    write_jsonl(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


def sweep(way: str, here: Path, manifest: Path, options: argparse.Namespace) -> tuple[float, dict[str, float]]:
    """(seconds, test/loss by factors)"""
    own = [
        "data=manifest",
        f"data.manifest={manifest}",
        f"data.sample_rate={RATE}",
        "size=tiny",
        "augment=none",
        "logger=none",
        "batching.batch_seconds=8",
        f"trainer.max_epochs={options.epochs}",
        "experiment=bench",
    ]
    launcher = [word.format(n=options.jobs) for word in WAYS[way]]
    command = [sys.executable, "-m", "asr_lab", "train", "-m", *own, *launcher, *AXES]
    start = time.monotonic()
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    results = [json.loads(p.read_text()) for p in here.glob("outputs/bench/*/result.json")]
    if done.returncode or len(results) != 12 or any(r["status"] != "done" for r in results):
        raise SystemExit(f"{way}: {done.stderr[-2000:]}")
    keys = ("encoder", "clipping", "seed")
    return seconds, {str([r["factors"][k] for k in keys]): r["metrics"]["test/loss"] for r in results}


def show(results: dict) -> None:
    table = Table("launcher", "s", "all rounds", "x local", title=f"12 cells of {results['epochs']} epochs")
    for way, row in results["rows"].items():
        table.add_row(way, f"{row['s']:.1f}", str(row["all_s"]), f"{row['x_local']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
