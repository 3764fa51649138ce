"""Grids whose truth is known: what intervals and tests are measured by, and what a planned experiment may look like."""

from typing import NamedTuple

import numpy as np

from asr_lab.report.stats.rates import Array


class Simulation(NamedTuple):
    """Configurations of one true error rate, scored on the same utterances.

    The chance of a wrong word is logistic in normal effects, whose standard deviations these are, on the logit scale:
    0.1 makes rates of 15 % vary by a relative 8 %. The default test set is about AN4's.
    """

    n_configurations: int = 6
    n_seeds: int = 3
    n_utterances: int = 130
    n_speakers: int = 0  # 0: nothing goes with the speaker
    logit: float = -2.0  # 17 % with the other defaults
    utterance: float = 1.2  # some are hard for all
    speaker: float = 0.5
    interaction: float = 0.3  # configuration and utterance: each has its own hard ones
    seed: float | tuple[float, ...] = 0.1  # of all configurations, or of each

    def grid(self, rng: np.random.Generator, shift: Array | float = 0.0) -> tuple[list[Array], Array, list[str] | None]:
        """(edits (S, N) of each configuration, words (N,), speakers (N,)); `shift` moves configurations' logits."""
        n = self.n_utterances
        words = rng.integers(2, 12, n).astype(float)
        common = self.logit + self.utterance * rng.standard_normal(n)
        of = np.arange(n) % max(1, self.n_speakers)
        if self.n_speakers:
            common += self.speaker * rng.standard_normal(self.n_speakers)[of]
        shifts, sds = (np.broadcast_to(x, self.n_configurations) for x in (shift, self.seed))
        edits = []
        for k in range(self.n_configurations):
            own = common + shifts[k] + self.interaction * rng.standard_normal(n)
            seeds = sds[k] * rng.standard_normal((self.n_seeds, 1))
            edits.append(rng.binomial(words.astype(int), 1 / (1 + np.exp(-own - seeds))).astype(float))
        return edits, words, [f"speaker{i:03d}" for i in of] if self.n_speakers else None

    def true_rate(self, shift: float = 0.0, configuration: int = 0) -> float:
        """The error rate over all utterances, speakers and seeds there might be: Gauss-Hermite quadrature."""
        seed = np.broadcast_to(self.seed, self.n_configurations)[configuration]
        parts = [self.utterance, self.interaction, seed, self.speaker if self.n_speakers else 0.0]
        at, weights = np.polynomial.hermite_e.hermegauss(101)
        x = self.logit + shift + np.sqrt(np.sum(np.square(parts))) * at
        return float(weights @ (1 / (1 + np.exp(-x))) / weights.sum())
