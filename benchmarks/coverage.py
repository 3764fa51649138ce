"""How far intervals and tests of the report can be trusted: simulated grids whose truth is known.

    python benchmarks/coverage.py [--trials 1000] [--resamples 1000] [--seed 1]

Prints the table of docs/report.md. Every trial is another test set, other seeds and other resamples.
"""

import argparse
import time

import numpy as np

from asr_lab.report.stats import compare, holm, paired_bootstrap, permutation
from asr_lab.report.stats.simulate import Simulation

SEED = 0.147  # on the logit scale: seeds' rates differ by 10 % of the rate
CASES = {
    "1 seed": Simulation(n_seeds=1, seed=SEED),
    "2 seeds": Simulation(n_seeds=2, seed=SEED),
    "3 seeds": Simulation(n_seeds=3, seed=SEED),
    "5 seeds": Simulation(n_seeds=5, seed=SEED),
    "2 seeds that differ by 20 %": Simulation(n_seeds=2, seed=2 * SEED),
    "3 seeds that differ by 20 %": Simulation(n_seeds=3, seed=2 * SEED),
    "3 seeds, blocks of 13 speakers": Simulation(n_seeds=3, seed=SEED, n_speakers=13),
    "1 seed, no seed matters": Simulation(n_seeds=1, seed=0.0),
    "1 seed, no seed matters, blocks of 13 speakers": Simulation(n_seeds=1, seed=0.0, n_speakers=13),
    "2 seeds, those of the first differ by 40 %": Simulation(n_seeds=2, seed=(4 * SEED, *[SEED] * 5)),
    "3 seeds, those of the first differ by 40 %": Simulation(n_seeds=3, seed=(4 * SEED, *[SEED] * 5)),
    "3 seeds, rate of 5 %": Simulation(n_seeds=3, seed=SEED, logit=-3.6),
}


def measure(case: Simulation, trials: int, n_resamples: int, seed: int) -> dict[str, float]:
    """Shares of `trials` grids of equal configurations; the interval is that of the first."""
    rng, truth = np.random.default_rng(seed), case.true_rate()
    counts = dict.fromkeys(
        ("interval holds the truth", "bootstrap", "permutation", "any of six worse", "by Holm", "uncorrected"), 0
    )
    for trial in range(trials):
        groups, words, blocks = case.grid(rng)
        options = {"blocks": blocks, "n_resamples": n_resamples, "seed": trial}
        found = compare(groups, words, **options)
        counts["interval holds the truth"] += found[0].rate.includes(truth)
        counts["bootstrap"] += paired_bootstrap(groups[0], groups[1], words, **options).p < 0.05
        counts["permutation"] += permutation(groups[0], groups[1], words, **options).p < 0.05
        counts["any of six worse"] += any(not c.best and not c.tied for c in found)
        counts["by Holm"] += bool((holm([c.p for c in found if not c.best]) < 0.05).any())
        counts["uncorrected"] += any(not c.best and not c.delta.includes(0) for c in found)
    return {name: count / trials for name, count in counts.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--trials", type=int, default=1000)
    arguments.add_argument("--resamples", type=int, default=1000)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    print(f"{options.trials} grids of six equal configurations, {options.resamples} resamples, seed {options.seed}")
    for name, case in CASES.items():
        start = time.perf_counter()
        found = measure(case, options.trials, options.resamples, options.seed)
        shown = ", ".join(f"{what} {100 * share:.1f} %" for what, share in found.items())
        print(f"{name}: {shown} ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
