"""How long a transcript should take to say, and which recordings are far from it: wrong transcripts are among them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LIMIT = 4.0  # robust z-score from which a recording is suspected
FEWEST = 12  # recordings from which there is something to compare with
LEAST_SPREAD = 0.05  # recordings that agree better than 5 % would make outliers of nothing
SHRINK = 5  # a speaker's own pace counts n / (n + SHRINK)
_HUBER = 1.5
_ROUNDS = 20


class Pace(NamedTuple):
    """expected seconds = base_s + character_s * characters + word_s * words, times each speaker's own pace."""

    base_s: float
    character_s: float
    word_s: float
    spread: float  # robust standard deviation of log(seconds / expected)


def suspicion(
    active_s: Sequence[float], characters: Sequence[int], words: Sequence[int], speakers: Sequence[str | None]
) -> tuple[Pace, np.ndarray] | None:
    """(fit, z-scores (N,)) of N recordings with `active_s` > 0 seconds of sound; None for fewer than 12.

    The expected seconds are a non-negative linear function of the transcript's characters (without spaces) and words:
    spelled words are few characters and many pauses. It is fitted to relative errors with Huber's weights (Huber,
    "Robust Estimation of a Location Parameter", 1964), so that the outliers that are looked for do not bend it. From
    log(active / expected) each speaker's median is taken off, shrunk by n / (n + 5); the z-score is what remains, less
    its median and over 1.4826 times its median absolute deviation (0.05 at the least). Positive: more sound than the
    transcript needs (words are missing in it); negative: too little (it has words that nobody says).
    """
    if len(active_s) < FEWEST:
        return None
    seconds = np.asarray(active_s, dtype=np.float64)
    design = np.column_stack([np.ones(len(seconds)), characters, words]).astype(np.float64)
    weights = _fit(seconds, design)
    errors = np.log(seconds / (design @ weights))
    errors -= np.median(errors)
    _take_off_speakers(errors, speakers)
    spread = _spread(errors)
    return Pace(*map(float, weights), spread=spread), (errors - np.median(errors)) / spread


def _fit(seconds: np.ndarray, design: np.ndarray) -> np.ndarray:
    """(3,) non-negative weights of the columns, by reweighted least squares on relative errors."""
    expected = design[:, 1] * np.median(seconds / design[:, 1])
    weights = np.zeros(3)
    for _ in range(_ROUNDS):
        errors = np.log(seconds / expected)
        errors -= np.median(errors)
        trust = np.minimum(1, _HUBER * _spread(errors) / np.maximum(np.abs(errors), 1e-9))
        scale = np.sqrt(trust) / expected
        weights = _non_negative(design * scale[:, None], seconds * scale)
        expected = design @ weights
    return weights


def _non_negative(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares without the columns whose weights would be negative, the most negative dropped first."""
    weights, kept = np.zeros(columns.shape[1]), list(range(columns.shape[1]))
    while True:
        found = np.linalg.lstsq(columns[:, kept], target, rcond=None)[0]
        if found.min() >= 0:
            weights[kept] = found
            return weights
        del kept[int(found.argmin())]


def _take_off_speakers(errors: np.ndarray, speakers: Sequence[str | None]) -> None:
    members: dict[str, list[int]] = {}
    for i, speaker in enumerate(speakers):
        if speaker is not None:
            members.setdefault(speaker, []).append(i)
    for own in members.values():
        errors[own] -= np.median(errors[own]) * len(own) / (len(own) + SHRINK)


def _spread(errors: np.ndarray) -> float:
    return max(1.4826 * float(np.median(np.abs(errors - np.median(errors)))), LEAST_SPREAD)
