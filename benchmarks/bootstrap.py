"""The bootstrap of a grid beside a plain Python loop and kaldialign's, and what a whole comparison takes.

    python benchmarks/bootstrap.py [--cells 50] [--utterances 2600] [--resamples 10000] [--rounds 3]

The loop resamples one cell with fewer resamples, kaldialign one cell without its edit distances; times are for one
resample of one cell. Ways alternate; medians; one process.
"""

import argparse
import json
import random
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np

from asr_lab.report.stats import bootstrap, compare

SEEDS = 3


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def plain_loop(errors: list[float], words: list[float], n_resamples: int) -> list[float]:
    """Bisani & Ney's bootstrap as one would write it first."""
    rng, pairs, rates = random.Random(0), list(zip(errors, words, strict=True)), []
    for _ in range(n_resamples):
        drawn = rng.choices(pairs, k=len(pairs))
        rates.append(sum(e for e, _ in drawn) / sum(w for _, w in drawn))
    return rates


def kaldialign_seconds(errors: np.ndarray, words: np.ndarray, n_resamples: int) -> float | None:
    """Of its resamples alone; None where it is not installed."""
    try:
        from kaldialign import bootstrap_wer_ci
    except ImportError:
        return None
    refs = [["a"] * int(w) for w in words]
    hyps = [["b"] * int(e) + ["a"] * int(w - e) for e, w in zip(errors, words, strict=True)]
    few = seconds(lambda: bootstrap_wer_ci(refs, hyps, replications=2))
    return max(1e-9, seconds(lambda: bootstrap_wer_ci(refs, hyps, replications=n_resamples)) - few)


def measure(n_cells: int, n_utterances: int, n_resamples: int, rounds: int) -> dict[str, float | None]:
    """Seconds for one resample of one cell, each way; seconds of a whole comparison; MB at its peak."""
    rng = np.random.default_rng(0)
    words = rng.integers(2, 20, n_utterances).astype(float)
    errors = np.minimum(rng.poisson(1.0, (n_cells, n_utterances)), words)
    groups = np.minimum(rng.poisson(1.0, (n_cells, SEEDS, n_utterances)), words)
    slow = max(100, n_resamples // 50)
    times: dict[str, list[float]] = {"ours": [], "loop": [], "kaldialign": [], "compare": []}
    for _ in range(rounds):
        times["ours"].append(seconds(lambda: bootstrap(errors, words, n_resamples)) / n_resamples / n_cells)
        times["loop"].append(seconds(lambda: plain_loop(errors[0].tolist(), words.tolist(), slow)) / slow)
        if (theirs := kaldialign_seconds(errors[0], words, n_resamples)) is not None:
            times["kaldialign"].append(theirs / n_resamples)
        times["compare"].append(seconds(lambda: compare(list(groups), words, n_resamples=n_resamples)))
    found: dict[str, float | None] = {k: statistics.median(v) if v else None for k, v in times.items()}
    return found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cells", type=int, default=50)
    arguments.add_argument("--utterances", type=int, default=2600)
    arguments.add_argument("--resamples", type=int, default=10_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    found = measure(options.cells, options.utterances, options.resamples, options.rounds)
    if options.json:
        print(json.dumps(found))
        return
    ours, loop, theirs = found["ours"], found["loop"], found["kaldialign"]
    assert ours and loop
    print(f"{options.cells} cells, {options.utterances} utterances, {options.resamples} resamples")
    print(f"bootstrap of the grid: {ours * options.cells * options.resamples:.2f} s")
    print(f"comparison with {SEEDS} seeds, ties over the grid included: {found['compare']:.2f} s")
    print(f"one resample of one cell: {1e6 * ours:.2f} us; a Python loop takes {loop / ours:.0f} times as long")
    if theirs:
        print(f"kaldialign takes {1e6 * theirs:.2f} us, {theirs / ours:.0f} times as long")
    print(f"peak memory of the process: {found['peak_mb']:.0f} MB")


if __name__ == "__main__":
    main()
