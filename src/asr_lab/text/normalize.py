"""Text normalisation: what is done to transcripts before training, and to both sides before scoring.

Every function takes any string and is idempotent. What cannot be read with certainty is left as it is written, so that
the check against the tokenizer names the utterance, instead of guessing a transcript.
"""

import re
import unicodedata

from asr_lab.text.numbers import spell

HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_READ_ALOUD = "@#%‰‱§"  # Unicode counts them as punctuation, but a speaker says them
_APOSTROPHES = dict.fromkeys("’‘ʼʻ`´", "'")
_LETTERS = {"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d"}  # without a decomposition
_ACCENT = re.compile("[\u0300-\u036f]")
_MARK = re.compile(r"(?<![0-9])(?:[^\w\s']|_)|(?:[^\w\s']|_)(?![0-9])")
_LONE_APOSTROPHE = re.compile(r"(?<![a-z])'|'(?![a-z])")
_BESIDE_HAN = re.compile(rf"\s+(?=[{HAN}])|(?<=[{HAN}])\s+")


def untouched(text: str) -> str:
    """As written, without space at the ends."""
    return text.strip()


def basic(text: str) -> str:
    """Lower case, one space between words, none at the ends."""
    return " ".join(text.lower().split())


def english(text: str, years: bool) -> str:
    """Lower case, accents and punctuation off (apostrophes inside words stay), `&` and sure numbers as words.

    A word with digits is read by `asr_lab.text.numbers.spell`, or stays as it is; so do signs that a speaker says
    (`$`, `@`, `+`, ...).
    """
    words = []
    for word in _translated(text, _ENGLISH).split():
        if re.search("[0-9]", word):
            words.append(spell(word, years))
        else:
            words += _without_punctuation(word.replace("&", " and ")).split()
    return " ".join(words)


def mandarin(text: str) -> str:
    """Half width (NFKC), lower case, punctuation off, no space beside a Han character.

    Words of other scripts keep single spaces between them. Digits stay as they are, with the punctuation between them:
    3.5 has more than one reading.
    """
    text = _without_punctuation(_translated(text, _MANDARIN))
    return " ".join(_BESIDE_HAN.sub("", text).split())


def _without_punctuation(text: str) -> str:
    """Spaces for punctuation, except apostrophes inside words, and whatever stands between two digits."""

    def space(mark: re.Match) -> str:
        is_punctuation = unicodedata.category(mark[0])[0] == "P" or mark[0] == "~"
        return " " if is_punctuation and mark[0] not in _READ_ALOUD else mark[0]

    return _LONE_APOSTROPHE.sub(" ", _MARK.sub(space, text))


def _plain(char: str) -> str:
    """The compatibility form (Unicode's NFKC) of letters, digits, punctuation, spaces and all that is full width; one
    form of apostrophe; invisible characters go.

    Numerals that are not digits keep their form, or 5² would become 52; so do symbols, or ™ would become two letters.
    """
    category = unicodedata.category(char)
    if category in ("Cf", "Cc"):
        return "" if category == "Cf" else " "
    if category[0] in "LPZ" or category == "Nd" or unicodedata.east_asian_width(char) == "F":
        char = unicodedata.normalize("NFKC", char)
    return "".join(_APOSTROPHES.get(c, c) for c in char)


def _translated(text: str, table: "_Table") -> str:
    # Composed before, so that an accent is seen with its letter, and after, for what a ligature or an invisible
    # character kept apart.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).translate(table))


class _Table(dict):
    """For `str.translate`: each character's replacement, worked out at its first use."""

    def __init__(self, change):
        self.change = change

    def __missing__(self, code: int) -> str:
        self[code] = changed = self.change(chr(code))
        return changed


def _english(char: str) -> str:
    bare = _ACCENT.sub("", unicodedata.normalize("NFD", _plain(char).casefold()))
    return unicodedata.normalize("NFC", "".join(_LETTERS.get(c, c) for c in bare))


_ENGLISH = _Table(_english)
_MANDARIN = _Table(lambda char: _plain(char).lower())
