"""What stands out in the numbers of `data.stats`, one sentence a finding, what is worst first."""

from collections.abc import Iterator
from typing import Any


def findings(answer: dict[str, Any]) -> list[str]:
    """Sentences about an answer of `stats.analyse`; of the recordings that one is about, the worst are named."""
    whole = _whole(answer)
    return [*_broken(answer), *_leaks(answer), *_texts(answer, whole), *_sounds(answer, whole.get("audio"))]


def _whole(answer: dict[str, Any]) -> dict[str, Any]:
    return list(answer["splits"].values())[-1]


def _broken(answer: dict[str, Any]) -> Iterator[str]:
    problems = answer["problems"]
    if problems["items"]:
        kinds = ", ".join(f"{kind} ({n})" for kind, n in problems["counts"].items())
        yield f"{counted(len(problems['items']), 'problem')} in the manifest and the recordings: {kinds}."


def _leaks(answer: dict[str, Any]) -> Iterator[str]:
    """What makes a held-out split easier than it looks."""
    across = [g for g in answer["same_audio"] if len(g["splits"]) > 1]
    if across:
        yield f"{_are(len(across), 'recording')} in more than one split, sample by sample: {_some(across[0]['ids'])}."
    inside = [g for g in answer["same_audio"] if len(g["splits"]) == 1]
    if inside:
        yield f"{_are(len(inside), 'recording')} in one split more than once: {_some(inside[0]['ids'])}."
    contradictory = [g for g in answer["same_audio"] if len(g["texts"]) > 1]
    if contradictory:
        yield (f"{_have(len(contradictory), 'recording')} more than one transcript: {_some(contradictory[0]['ids'])}.")
    for name, new in answer["unseen"].items():
        if new["shared_speakers"]:
            yield f"{_are(len(new['shared_speakers']), 'speaker', f'of {name}')} also in train."
        if new["repeated_transcripts"]:
            share = _percent(new["repeated_transcript_share"])
            which = f"of {name} ({share})"
            yield f"{_are(new['repeated_transcripts'], 'transcript', which)} also in train, word by word."


def _texts(answer: dict[str, Any], whole: dict[str, Any]) -> Iterator[str]:
    if whole["empty_transcripts"]:
        yield f"{_are(whole['empty_transcripts'], 'transcript')} empty."
    for name, new in answer["unseen"].items():
        if new["word_types"] and answer["unit"] == "word":
            yield (
                f"{_are(new['word_types'], 'word', f'of {name}')} not in train ({_percent(new['word_token_share'])} of "
                "what is said there)."
            )
        if new["characters"]:
            shown = ", ".join(c["character"] if c["character"].isprintable() else c["code"] for c in new["characters"])
            yield f"{_are(len(new['characters']), 'character', f'of {name}')} not in train: {shown[:80]}"


def _sounds(answer: dict[str, Any], audio: dict[str, Any] | None) -> Iterator[str]:
    if not audio:
        return
    of = f"of {audio['measured']:,}"
    if answer["suspects"]:
        which = [s["id"] for s in answer["suspects"]]
        yield f"{_have(len(which), 'recording', of)} too much or too little sound for the transcript: {_some(which)}."
    for name, (verb, said) in _FLAGS.items():
        if which := answer["flagged"][name]:
            yield f"{verb(len(which), 'recording', of)} {said}: {_some(which)}."
    for what, unit in (("sample_rates", "Hz"), ("channels", "channels")):
        if len(audio[what]) > 1:
            yield "Not all recordings are alike: " + ", ".join(f"{k} {unit} ({n:,})" for k, n in audio[what].items())


def counted(count: int, noun: str) -> str:
    """`1 word`, `2,000 words`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _are(count: int, noun: str, which: str = "") -> str:
    return " ".join(filter(None, (counted(count, noun), which, "is" if count == 1 else "are")))


def _have(count: int, noun: str, which: str = "") -> str:
    return " ".join(filter(None, (counted(count, noun), which, "has" if count == 1 else "have")))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (f" and {len(ids) - 3:,} more" if len(ids) > 3 else "")


_FLAGS = {
    "soundless": (_have, "no sound at all"),
    "clipped": (_are, "clipped in places"),
    "noisy": (_have, "an SNR below 10 dB"),
    "dc": (_have, "a DC offset above a tenth of the RMS level"),
}
