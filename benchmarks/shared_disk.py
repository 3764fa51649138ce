"""A thousand nodes on one disk: what their cells write, at their pace or faster, and how long each write takes.

    python benchmarks/shared_disk.py [--nodes 1000] [--speed 5] [--seconds 30] [--json FILE]

Each node is a thread that takes one cell after the other with the code that cells use: it holds the cell's folder,
whose lock beats, appends to a ledger file of its own, replaces progress.json and result.json. Nothing trains. `--speed`
shortens all intervals (heart-beats of 10 s, progress of 5 s, cells of 10 minutes) by that factor. `status` is read
beside it, as a person would. All on the local disk: what a network adds is not in the numbers.
"""

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from asr_lab import hold
from asr_lab.environment import environment
from asr_lab.files import write_json
from asr_lab.ledger import Ledger, read_events
from asr_lab.sweep.state import state_of

CELL_S = 600.0
EVERY_S = 5.0  # that of callbacks/progress.py, whose imports twenty processes need not repeat
PROCESSES = 20
RESULT = {"fingerprint": "", "metrics": {"test/wer": 0.5}, "score": "wer", "seconds": {"total": 600.0}}
PROGRESS = {
    "epoch": 1,
    "epochs": 9,
    "step": 1,
    "steps": 9,
    "metric": "wer",
    "score": 0.5,
    "began": 0.0,
    "first_step": 0,
}
Times = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--speed", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = simulate(Path(name) / "many", options.nodes, options.speed, options.seconds)
    show(results)
    if options.json:
        write_json(options.json, results)


def simulate(folder: Path, nodes: int, speed: float, seconds: float) -> dict:
    cells = [{"name": f"cell-{i}", "fingerprint": f"{i:016x}", "factors": {"seed": i}} for i in range(nodes)]
    write_json(folder / "sweep.json", {"experiment": "many", "question": "", "axes": {}, "cells": cells})
    context = multiprocessing.get_context("forkserver")
    shares = [range(i, nodes, PROCESSES) for i in range(min(PROCESSES, nodes))]
    looks: list[float] = []
    with context.Pool(len(shares)) as pool:
        found = pool.starmap_async(_nodes, [(folder, list(share), speed, seconds) for share in shares], chunksize=1)
        while not found.ready():
            found.wait(5.0)
            start = time.perf_counter()
            state_of(folder)
            looks.append(time.perf_counter() - start)
    times: Times = defaultdict(list)
    for each in found.get():
        for what, some in each.items():
            times[what] += some
    events, damage = read_events(folder)
    assert not damage, damage
    assert len(events) == len(times["append to the ledger"]), "a line is missing"
    return {
        "about": {**environment(), "load": os.getloadavg()[0]},
        "nodes": nodes,
        "speed": speed,
        "seconds": seconds,
        "rows": {what: _row(some, seconds) for what, some in times.items()} | {"status": _row(looks, seconds)},
    }


def _row(times: list[float], seconds: float) -> dict[str, float]:
    ranked = sorted(times)
    return {
        "per_s": round(len(times) / seconds, 1),
        "median_ms": round(1000 * statistics.median(times), 2),
        "p99_ms": round(1000 * ranked[int(0.99 * len(ranked))], 2),
        "max_ms": round(1000 * ranked[-1], 2),
    }


def _nodes(folder: Path, share: list[int], speed: float, seconds: float) -> Times:
    """Some nodes, a thread each"""
    hold.BEAT_S /= speed
    times: Times = defaultdict(list)
    end = time.monotonic() + seconds
    threads = [threading.Thread(target=_node, args=(folder, i, speed, end, times)) for i in share]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def _node(folder: Path, i: int, speed: float, end: float, times: Times) -> None:
    rng = random.Random(i)
    time.sleep(rng.uniform(0, EVERY_S / speed))
    cell = folder / f"cell-{i}"
    until = time.monotonic() + rng.uniform(0, CELL_S / speed)  # they began at different times
    while time.monotonic() < end:
        with _timed(times, "take a cell"):
            held = hold.hold(cell)
            held.__enter__()
        writer = Ledger(folder)
        _result(cell, "running", times)
        _append(writer, cell, "running", times)
        while time.monotonic() < min(until, end):
            with _timed(times, "replace progress.json"):
                write_json(cell / "progress.json", PROGRESS | {"time": time.time()})
            time.sleep(max(0.0, min(EVERY_S / speed, end - time.monotonic())))
        _result(cell, "done", times)
        _append(writer, cell, "done", times)
        writer.close()
        held.__exit__(None, None, None)
        until = time.monotonic() + CELL_S / speed


def _result(cell: Path, status: str, times: Times) -> None:
    with _timed(times, "replace result.json"):
        result = RESULT | {"cell": cell.name, "status": status}
        write_json(cell / "result.json", result)


def _append(writer: Ledger, cell: Path, state: str, times: Times) -> None:
    with _timed(times, "append to the ledger"):
        writer.append(cell.name, state)


@contextmanager
def _timed(times: Times, what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    times[what].append(time.perf_counter() - start)


def show(results: dict) -> None:
    title = f"{results['nodes']} nodes at {results['speed']:g} times their pace, {results['seconds']:g} s"
    table = Table("what", "a second", "median ms", "99 % below", "longest", title=title)
    for what, row in results["rows"].items():
        table.add_row(what, *(f"{row[key]:g}" for key in ("per_s", "median_ms", "p99_ms", "max_ms")))
    Console().print(table)


if __name__ == "__main__":
    main()
