"""The numbers of a corpus: per split and in all, from the manifest and, where wanted, from the recordings."""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from asr_lab.data import speech_rate, transcripts
from asr_lab.data.examples import FLAGS, examples, flagged, rate, same_audio, suspects
from asr_lab.data.findings import findings
from asr_lab.data.manifest import Problem, Utterance
from asr_lab.data.measure import Heard, look_at_all

ALL = "all"
PERCENTILES = {"min": 0, "p5": 5, "q1": 25, "median": 50, "q3": 75, "p95": 95, "p99": 99, "max": 100}
N_BARS = 24
FENCE = 4.0  # interquartile ranges
SAME = 1e-4  # a range that is none

Splits = dict[str, list[Utterance]]


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    """Percentiles and mean of what is not None, to 4 figures after the point; None where nothing is left."""
    known = np.array([v for v in values if v is not None], dtype=np.float64)
    if not len(known):
        return None
    numbers = dict(zip(PERCENTILES, np.percentile(known, list(PERCENTILES.values())), strict=True))
    return {name: round(float(v), 4) for name, v in {**numbers, "mean": known.mean()}.items()}


def histogram(values: Iterable[float | None]) -> dict[str, Any] | None:
    """`edges` (N + 1) and `counts` (N) of up to 24 bars of equal width, `min` and `max`; None without values.

    Whole numbers get bars of whole numbers. Values further than four interquartile ranges outside the middle half
    are counted in the first and the last bar, so that one outlier does not squeeze all others into a line.
    """
    known = np.array([v for v in values if v is not None], dtype=np.float64)
    if not len(known):
        return None
    low, high, q1, q3 = np.percentile(known, [0, 100, 25, 75])
    if q3 > q1:
        fences = q1 - FENCE * (q3 - q1), q3 + FENCE * (q3 - q1)
        inside = known[(known >= fences[0]) & (known <= fences[1])]
        low, high = inside.min(), inside.max()
    if (known == known.round()).all():
        step = -(-(high - low + 1) // N_BARS)
        edges = low - 0.5 + step * np.arange(-(-(high - low + 1) // step) + 1)
    elif high - low > SAME:
        edges = np.linspace(low, high, N_BARS + 1)
    else:
        edges = np.array([low - 0.5, high + 0.5])
    counts, _ = np.histogram(known.clip(low, high), edges)
    ends = {"min": round(float(known.min()), 6), "max": round(float(known.max()), 6)}
    return {"edges": edges.round(6).tolist(), "counts": counts.tolist(), **ends}


def analyse(
    splits: Splits,
    spaced: bool,
    audio: bool = True,
    sample_rate: int | None = None,
    channel: int | str = "mix",
    max_utterances: int | None = None,
    seed: int = 0,
    n_workers: int = 1,
    advance: Callable[[], Any] = lambda: None,
    problems: Iterable[Problem] = (),
) -> dict[str, Any]:
    """All that `asr-lab data stats --json` prints, except where the corpus came from.

    Args:
        splits: utterances by split, their transcripts normalised; the held-out ones are compared with `train`.
        spaced: whether words are what stands between spaces; else every character is one.
        audio: whether recordings are decoded and measured.
        sample_rate, channel: wanted of the recordings, as for `measure.look`.
        max_utterances: so many recordings, drawn with `seed` from all splits together, are decoded; the statistics of
            transcripts, durations and speakers always cover all lines.
        advance: called after each recording.
        problems: found in the manifest already.
    """
    everyone = [u for us in splits.values() for u in us]
    chosen = draw(everyone, max_utterances, seed) if audio else []
    heard, broken = [], []
    for u, look in zip(chosen, look_at_all(chosen, sample_rate, channel, n_workers), strict=True):
        heard += [Heard(u, look.signal)] if look.signal else []
        broken += [look.problem] if look.problem else []
        advance()
    scores, pace = _suspicion(heard, spaced)
    several = {**(splits if len(splits) > 1 else {}), ALL: everyone}
    by_split = {name: {u.id for u in us} for name, us in several.items()}
    where = {u.id: name for name, us in splits.items() for u in us}
    train = splits.get("train", [])
    held = {name: us for name, us in splits.items() if train and name != "train"}
    answer: dict[str, Any] = {
        "unit": "word" if spaced else "character",
        "utterances": len(everyone),
        "hours": round(sum(u.duration for u in everyone) / 3600, 4),
        "audio": {"wanted": len(chosen), "measured": len(heard), "seed": seed} if audio else None,
        "splits": {
            name: _split(us, spaced) | {"audio": _sound([h for h in heard if h.utterance.id in by_split[name]], scores)}
            for name, us in several.items()
        },
        "unseen": {name: transcripts.unseen(train, us, spaced) for name, us in held.items()},
        "words": transcripts.count_words(everyone, spaced).most_common(transcripts.TOP),
        "characters": transcripts.listed(transcripts.count_characters(everyone)),
        "speakers": (speakers := _speakers(splits)),
        "histograms": _histograms(everyone, heard, scores, spaced)
        | {"speaker_minutes": histogram(row["minutes"] for row in speakers)},
        "pace": pace._asdict() if pace else None,
        "flagged": flagged(heard),
        "suspects": suspects(heard, scores, where),
        "same_audio": same_audio(heard, where),
        "examples": examples(heard, scores, where, seed),
        "problems": _problems([*problems, *broken]) | {"recordings": len(chosen) - len(heard)},
    }
    return answer | {"findings": findings(answer)}


def draw(utterances: list[Utterance], n: int | None, seed: int) -> list[Utterance]:
    """`n` of the utterances (all when None or no more are there), in their order, the same for the same seed."""
    if n is None or n >= len(utterances):
        return utterances
    chosen = set(random.Random(f"stats {seed}").sample(range(len(utterances)), n))
    return [u for i, u in enumerate(utterances) if i in chosen]


def _problems(found: list[Problem]) -> dict[str, Any]:
    counts = Counter(p.kind for p in found)
    return {"counts": dict(counts.most_common()), "items": [p._asdict() for p in found]}


def _split(utterances: list[Utterance], spaced: bool) -> dict[str, Any]:
    words, characters = transcripts.count_words(utterances, spaced), transcripts.count_characters(utterances)
    return {
        "utterances": len(utterances),
        "seconds": round(sum(u.duration for u in utterances), 3),
        "speakers": len({u.speaker for u in utterances} - {None}),
        "duration_s": spread(u.duration for u in utterances),
        "text": transcripts.vocabulary(words, characters),
        "words_per_utterance": spread(len(transcripts.units(u.text, spaced)) for u in utterances),
        "characters_per_utterance": spread(len(u.text) for u in utterances),
        "empty_transcripts": sum(not u.text.strip() for u in utterances),
    }


def _sound(heard: list[Heard], scores: dict[str, float]) -> dict[str, Any] | None:
    if not heard:
        return None
    signals = [h.signal for h in heard]
    fields = ("peak_db", "rms_db", "dc", "clipped", "leading_s", "trailing_s", "silent", "active_s", "snr_db")
    return {
        "measured": len(heard),
        "sample_rates": dict(Counter(s.sample_rate for s in signals).most_common()),
        "channels": dict(Counter(s.n_channels for s in signals).most_common()),
        **{name: spread(getattr(s, name) for s in signals) for name in fields},
        "characters_per_s": spread(map(rate, heard)),
        "flagged": {name: sum(badness(s) > 0 for s in signals) for name, badness in FLAGS.items()},
        "suspects": sum(abs(scores.get(h.utterance.id, 0)) >= speech_rate.LIMIT for h in heard),
    }


def _suspicion(heard: list[Heard], spaced: bool) -> tuple[dict[str, float], speech_rate.Pace | None]:
    usable = [h for h in heard if rate(h) is not None]
    fit = speech_rate.suspicion(
        [h.signal.active_s for h in usable],
        [transcripts.n_characters(h.utterance.text) for h in usable],
        [len(transcripts.units(h.utterance.text, spaced)) for h in usable],
        [h.utterance.speaker for h in usable],
    )
    if fit is None:
        return {}, None
    return {h.utterance.id: float(z) for h, z in zip(usable, fit[1], strict=True)}, fit[0]


def _speakers(splits: Splits) -> list[dict[str, Any]]:
    """Each speaker's utterances and minutes, and the splits that it is in; who speaks most comes first."""
    rows: dict[str, dict[str, Any]] = {}
    for name, utterances in splits.items():
        for u in utterances:
            if u.speaker is None:
                continue
            row = rows.setdefault(u.speaker, {"speaker": u.speaker, "splits": [], "utterances": 0, "minutes": 0.0})
            if name not in row["splits"]:
                row["splits"].append(name)
            row["utterances"] += 1
            row["minutes"] += u.duration / 60
    ordered = sorted(rows.values(), key=lambda row: (-row["minutes"], row["speaker"]))
    return [row | {"minutes": round(row["minutes"], 3)} for row in ordered]


def _histograms(
    everyone: list[Utterance], heard: list[Heard], scores: dict[str, float], spaced: bool
) -> dict[str, dict | None]:
    signals = [h.signal for h in heard]
    return {
        "duration_s": histogram(u.duration for u in everyone),
        "words": histogram(len(transcripts.units(u.text, spaced)) for u in everyone),
        "rms_db": histogram(s.rms_db for s in signals),
        "snr_db": histogram(s.snr_db for s in signals),
        "silent": histogram(s.silent for s in signals),
        "characters_per_s": histogram(map(rate, heard)),
        "z": histogram(scores.get(h.utterance.id) for h in heard),
    }
