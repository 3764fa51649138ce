"""Which recordings are worth hearing: the suspects, the extremes, the same twice, some at random.

`scores` holds z-scores and `where` split names, both by utterance id.
"""

import random
from collections.abc import Callable
from typing import Any

from asr_lab.data import speech_rate, transcripts
from asr_lab.data.manifest import Utterance
from asr_lab.data.measure import Heard, Signal

N_RANDOM = 3
DC_OF_RMS = 0.1  # a DC offset above this share of the RMS level is one
NOISY_DB = 10.0
# How bad it is, 0 when it is not.
FLAGS: dict[str, Callable[[Signal], float]] = {
    "soundless": lambda s: s.seconds if s.active_s == 0 else 0,
    "clipped": lambda s: s.clipped,
    "noisy": lambda s: 0 if s.snr_db is None else max(0, NOISY_DB - s.snr_db),
    "dc": lambda s: max(0, abs(s.dc) / 10 ** (s.rms_db / 20) - DC_OF_RMS),
}


def rate(h: Heard) -> float | None:
    """Characters (without spaces) per second of sound."""
    n = transcripts.n_characters(h.utterance.text)
    return n / h.signal.active_s if n and h.signal.active_s else None


def flagged(heard: list[Heard]) -> dict[str, list[str]]:
    """Ids of the recordings that each of `FLAGS` is raised for, the worst first."""
    found = {}
    for name, badness in FLAGS.items():
        bad = sorted((-badness(h.signal), h.utterance.id) for h in heard)
        found[name] = [id_ for worst, id_ in bad if worst < 0]
    return found


def suspects(heard: list[Heard], scores: dict[str, float], where: dict[str, str]) -> list[dict[str, Any]]:
    """Beyond the limit, the most suspect first."""
    far = [h for h in heard if abs(scores.get(h.utterance.id, 0)) >= speech_rate.LIMIT]
    far.sort(key=lambda h: -abs(scores[h.utterance.id]))
    return [
        {
            "id": h.utterance.id,
            "split": where[h.utterance.id],
            "z": round(scores[h.utterance.id], 2),
            "characters_per_s": round(rate(h) or 0, 2),
            "active_s": round(h.signal.active_s, 3),
            "text": h.utterance.text,
        }
        for h in far
    ]


def same_audio(heard: list[Heard], where: dict[str, str]) -> list[dict[str, Any]]:
    """Groups of recordings with the same samples."""
    groups: dict[str, list[Utterance]] = {}
    for h in heard:
        if h.signal.active_s:  # recordings of nothing are alike for another reason
            groups.setdefault(h.signal.digest, []).append(h.utterance)
    return [
        {
            "ids": [u.id for u in group],
            "splits": sorted({where[u.id] for u in group}),
            "texts": sorted({u.text for u in group}),
        }
        for group in groups.values()
        if len(group) > 1
    ]


def examples(heard: list[Heard], scores: dict[str, float], where: dict[str, str], seed: int) -> list[dict[str, Any]]:
    """Recordings worth hearing, each with all that makes it so."""
    if not heard:
        return []
    loud = [h for h in heard if h.signal.active_s]
    scored = [h for h in heard if h.utterance.id in scores]
    clipped = [h for h in heard if h.signal.clipped]
    noisy = [h for h in heard if h.signal.snr_db is not None]
    picks: list[tuple[str, Heard]] = []

    def pick(why: str, among: list[Heard], key: Callable[[Heard], float], n: int = 1) -> None:
        picks.extend((why, h) for h in sorted(among, key=key)[:n])

    pick("most sound for its transcript", scored, lambda h: -scores[h.utterance.id], 2)
    pick("least sound for its transcript", scored, lambda h: scores[h.utterance.id], 2)
    pick("without any sound", [h for h in heard if not h.signal.active_s], lambda h: -h.signal.seconds)
    pick("shortest", heard, lambda h: h.signal.seconds)
    pick("longest", heard, lambda h: -h.signal.seconds)
    pick("loudest", loud, lambda h: -h.signal.rms_db)
    pick("quietest", loud, lambda h: h.signal.rms_db)
    pick("most clipped", clipped, lambda h: -h.signal.clipped)
    pick("noisiest", noisy, lambda h: h.signal.snr_db or 0)
    for h in random.Random(f"examples {seed}").sample(heard, min(N_RANDOM, len(heard))):
        picks.append(("random", h))
    rows: dict[str, dict[str, Any]] = {}
    for why, h in picks:
        row = rows.setdefault(h.utterance.id, {"id": h.utterance.id, "split": where[h.utterance.id], "why": []})
        row["why"].append(why)
        row |= {k: v for k, v in h.signal._asdict().items() if k != "digest"} | {"z": scores.get(h.utterance.id)}
    return list(rows.values())
