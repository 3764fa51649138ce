"""What the transcripts of a corpus tell: vocabulary, characters, and what the training split does not have."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

from asr_lab.data.manifest import Utterance

TOP = 50  # words that are listed


def units(text: str, spaced: bool) -> list[str]:
    """The words of a transcript; its characters where the script has no spaces between words."""
    return text.split() if spaced else [c for c in text if not c.isspace()]


def n_characters(text: str) -> int:
    """Characters without white space."""
    return sum(not c.isspace() for c in text)


def count_words(utterances: Iterable[Utterance], spaced: bool) -> Counter[str]:
    return _count(units(u.text, spaced) for u in utterances)


def count_characters(utterances: Iterable[Utterance]) -> Counter[str]:
    return _count(u.text for u in utterances)


def _count(groups: Iterable[Iterable[str]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for group in groups:
        counts.update(group)  # in C, where a generator over all characters would take several times as long
    return counts


def vocabulary(words: Counter[str], characters: Counter[str]) -> dict[str, int]:
    """Sizes, of one split or of all."""
    return {
        "words": words.total(),
        "vocabulary": len(words),
        "words_once": sum(n == 1 for n in words.values()),
        "characters": characters.total(),
        "alphabet": len(characters),
    }


def unseen(train: list[Utterance], held: list[Utterance], spaced: bool) -> dict[str, Any]:
    """What `held` has and `train` has not, and what both have: shares are of the held split's tokens or utterances."""
    words, known = count_words(held, spaced), count_words(train, spaced)
    new = Counter({word: n for word, n in words.items() if word not in known})
    characters = count_characters(train)
    strange = Counter({c: n for c, n in count_characters(held).items() if c not in characters})
    said = {u.text for u in train}
    repeated = [u for u in held if u.text in said]
    people = {u.speaker for u in train} & {u.speaker for u in held} - {None}
    return {
        "word_types": len(new),
        "word_type_share": _share(len(new), len(words)),
        "word_tokens": new.total(),
        "word_token_share": _share(new.total(), words.total()),
        "most_frequent": new.most_common(TOP),
        "characters": listed(strange),
        "repeated_transcripts": len(repeated),
        "repeated_transcript_share": _share(len(repeated), len(held)),
        "shared_speakers": sorted(map(str, people)),
    }


def listed(characters: Counter[str]) -> list[dict[str, Any]]:
    """Characters with their names and counts, the most frequent first: a name shows what an eye cannot tell apart."""
    return [
        {"character": c, "code": f"U+{ord(c):04X}", "name": unicodedata.name(c, "(no name)").lower(), "count": n}
        for c, n in sorted(characters.items(), key=lambda item: (-item[1], item[0]))
    ]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
