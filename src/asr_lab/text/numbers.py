"""English numbers as words, where there is one sure reading."""

import re
import unicodedata
from functools import lru_cache

_WHOLE = "[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+"
_NUMBER = re.compile(rf"(?P<whole>{_WHOLE})?(?:\.(?P<part>[0-9]+))?(?P<percent>%)?")
_ORDINAL = re.compile(rf"(?P<whole>{_WHOLE})(?:st|nd|rd|th)")
_MAX_DIGITS = 15  # longer ones are codes, not quantities


@lru_cache(maxsize=100_000)
def spell(word: str, years: bool) -> str:
    """Whole numbers (1,234), decimals (3.14), ordinals (21st) and percentages in words, by num2words.

    `and` is said as in "one hundred and five", no hyphens. Leading zeros and decimals are read digit by digit. With
    `years`, four digits from 1100 to 2099 are a year (1984: nineteen eighty four). Quotes, brackets and sentence marks
    around a number go. Anything else (times, dates, amounts of money, ranges, fractions, mp3, numbers of more than 15
    digits) is returned with its digits.
    """
    word = _trimmed(word)
    if (ordinal := _ORDINAL.fullmatch(word)) and word.replace(",", "") == _words(ordinal["whole"], "ordinal_num"):
        return _words(ordinal["whole"], "ordinal")
    number = _NUMBER.fullmatch(word)
    if not number or len(number["whole"] or "") > _MAX_DIGITS:
        return word
    whole, part = number["whole"], number["part"]
    if years and not part and re.fullmatch("1[1-9][0-9]{2}|20[0-9]{2}", whole) and not number["percent"]:
        return _words(whole, "year")
    said = [] if whole is None else [_digits(whole) if re.match("0[0-9]", whole) else _words(whole, "cardinal")]
    said += ["point", _digits(part)] if part else []
    return " ".join([*said, *(["percent"] if number["percent"] else [])])


def _words(whole: str, kind: str) -> str:
    from num2words import num2words

    said = num2words(int(whole.replace(",", "")), lang="en", to=kind)
    return " ".join(re.sub("[-,]", " ", said).split())


def _digits(text: str) -> str:
    return " ".join(_words(digit, "cardinal") for digit in text if digit != ",")


def _trimmed(word: str) -> str:
    start, end = 0, len(word)
    while start < end and (word[start] in "\"'¿¡" or unicodedata.category(word[start]) in ("Ps", "Pi", "Pf")):
        start += 1
    while end > start and (word[end - 1] in "\"'.,;:!?" or unicodedata.category(word[end - 1]) in ("Pe", "Pi", "Pf")):
        end -= 1
    return word[start:end]
