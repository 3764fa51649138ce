"""A seeded grammar of English number phrases as people say them: `twenty past six`, `double oh seven`, `point five`.

Lower case, letters, spaces and the apostrophe of `o'clock` only; one to `MAX_WORDS` words, mostly fewer than six.
"""

# ruff: noqa: SIM905  words are read and mended more easily without eighty pairs of quotes

from collections.abc import Callable
from random import Random

MAX_WORDS = 7

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
_MONTHS = "january february march april may june july august september october november december".split()
_OTHERS = "hundred thousand and a thirtieth oh double triple point past to half quarter o'clock the of".split()
_MONEY = "dollar dollars cents".split()

VOCABULARY = tuple(sorted({*_ONES, *_TENS, *_ORDINALS, *_MONTHS, *_OTHERS, *_MONEY}))


def phrases(n: int, seed: int | str) -> list[str]:
    """`n` phrases; the first ones are the same for every larger `n`. Phrases repeat, the short ones often."""
    rng = Random(seed)
    kinds, weights = zip(*_KINDS, strict=True)
    found: list[str] = []
    while len(found) < n:
        words = rng.choices(kinds, weights)[0](rng)
        if len(words) <= MAX_WORDS:  # a longer one is drawn again: a tail of long utterances would only pad batches
            found.append(" ".join(words))
    return found


def spell(number: int, *, with_and: bool = False) -> list[str]:
    """Words of a cardinal, 0 to 999,999; `with_and` says `two hundred and five`."""
    if number < 20:
        return [_ONES[number]]
    if number < 100:
        tens, ones = divmod(number, 10)
        return [_TENS[tens - 2], *([_ONES[ones]] if ones else [])]
    unit, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    count, rest = divmod(number, unit)
    words = [*spell(count, with_and=with_and), name]
    if rest:
        words += ["and"] if with_and and rest < 100 else []
        words += spell(rest, with_and=with_and)
    return words


def spell_ordinal(number: int) -> list[str]:
    """Words of an ordinal, 1 to 99 without the round tens above 30."""
    if number <= 20:
        return [_ORDINALS[number - 1]]
    if number == 30:
        return ["thirtieth"]
    tens, ones = divmod(number, 10)
    return [_TENS[tens - 2], _ORDINALS[ones - 1]]


def _cardinal(rng: Random) -> list[str]:
    n_digits = rng.choices((1, 2, 3, 4, 5, 6), (5, 8, 8, 5, 2, 2))[0]
    number = rng.randrange(10 ** (n_digits - 1) if n_digits > 1 else 0, 10**n_digits)
    if n_digits > 3 and rng.random() < 0.6:
        number -= number % 1000 if rng.random() < 0.5 else number % 100  # people round what is large
    words = spell(number, with_and=rng.random() < 0.5)
    if words[0] == "one" and words[1:2] in (["hundred"], ["thousand"]) and rng.random() < 0.4:
        words[0] = "a"
    return words


def _ordinal(rng: Random) -> list[str]:
    number = rng.randrange(1, 100)
    number += number > 30 and number % 10 == 0
    return (["the"] if rng.random() < 0.4 else []) + spell_ordinal(number)


def _digits(rng: Random) -> list[str]:
    """A telephone-like string of two to five digits, some doubled; a string keeps to `oh` or to `zero`."""
    zero, repeats = rng.choice(("oh", "zero")), rng.random() < 0.6
    digits = [rng.randrange(10) for _ in range(rng.randrange(2, 6))]
    words: list[str] = []
    for digit in digits:
        name = _ONES[digit] if digit else zero
        if repeats and rng.random() < 0.2:
            words.append(rng.choice(("double", "double", "triple")))
        words.append(name)
    return words


def _decimal(rng: Random) -> list[str]:
    whole = rng.randrange(10) if rng.random() < 0.7 else rng.randrange(10, 100)
    start = [] if whole == 0 and rng.random() < 0.5 else spell(whole)
    return [*start, "point", *(_ONES[rng.randrange(10)] for _ in range(rng.randrange(1, 4)))]


def _time(rng: Random) -> list[str]:
    hour = _ONES[rng.randrange(1, 13)]
    form = rng.randrange(4)
    if form == 0:
        return [hour, "o'clock"]
    if form == 1:
        return [*rng.choice((["half", "past"], ["quarter", "past"], ["a", "quarter", "to"], ["quarter", "to"])), hour]
    if form == 2:
        return [*spell(rng.choice((5, 10, 20, 25))), rng.choice(("past", "to")), hour]
    minute = rng.randrange(1, 60)
    return [hour, *(["oh"] if minute < 10 else []), *spell(minute)]


def _year(rng: Random) -> list[str]:
    year = rng.randrange(1900, 2030)
    century, rest = divmod(year, 100)
    if century == 20 and rest < 10:
        return spell(year, with_and=rng.random() < 0.5)
    if rest == 0:
        return [*spell(century), "hundred"]
    return [*spell(century), *(["oh"] if rest < 10 else []), *spell(rest)]


def _date(rng: Random) -> list[str]:
    month = rng.randrange(12)
    n_days = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month]
    day, name = spell_ordinal(rng.randrange(1, n_days + 1)), _MONTHS[month]
    words = rng.choice((["the", *day, "of", name], [name, *day], [name, "the", *day]))
    return words + (_year(rng) if rng.random() < 0.4 else [])


def _price(rng: Random) -> list[str]:
    dollars = 1 if rng.random() < 0.1 else rng.randrange(2, 100)
    cents = rng.randrange(5, 100, 5)
    whole = [*spell(dollars), "dollar" if dollars == 1 else "dollars"]
    form = rng.randrange(4)
    if form == 0:
        return [*spell(cents), "cents"]
    if form == 1:
        return whole
    if form == 2:
        return [*spell(dollars), *(["oh"] if cents < 10 else []), *spell(cents)]
    return [*whole, "and", *spell(cents), "cents"]


# A kind of phrase and how often it is drawn, in parts.
_KINDS: tuple[tuple[Callable[[Random], list[str]], int], ...] = (
    (_cardinal, 6),
    (_ordinal, 3),
    (_digits, 5),
    (_decimal, 3),
    (_time, 4),
    (_date, 4),
    (_price, 3),
)
