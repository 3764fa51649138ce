"""Which recordings are worth hearing: the suspects, the extremes, the same twice, some at random.

`scores` holds z-scores and `where` split names, both by utterance id.
"""

import random
from collections.abc import Callable
from typing import Any

from asr_lab.data import speech_rate, transcripts
from asr_lab.data.manifest import Utterance
from asr_lab.data.measure import Heard

N_RANDOM = 3


def rate(h: Heard) -> float | None:
    """Characters (without spaces) per second of sound."""
    n = transcripts.n_characters(h.utterance.text)
    return n / h.signal.active_s if n and h.signal.active_s else None


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
