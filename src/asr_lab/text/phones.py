"""One label a phone, through a pronunciation lexicon."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from asr_lab.errors import DataError

BOUNDARY = "|"  # between words; what makes the way back from phones to words possible
Lexicon = dict[str, list[tuple[str, ...]]]  # pronunciations of each word, in the order of the file


class PhoneTokenizer:
    """Phones with a label between words. A word is encoded by its first pronunciation.

    Decoding looks each stretch between two boundaries up in the lexicon, all variants included. Of words that sound
    alike the one with the highest count wins (the first of the lexicon among equals), so `decode(encode(text))` is
    `text` with homophones replaced. A stretch that is no word is written as its phones, `/k.ae.t/`, one wrong word.
    """

    def __init__(self, lexicon: Lexicon, counts: Counter[str]):
        self.lexicon = lexicon
        self.symbols = [BOUNDARY, *sorted({phone for ways in lexicon.values() for way in ways for phone in way})]
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}
        self._labels = {word: [self._ids[phone] for phone in ways[0]] for word, ways in lexicon.items()}
        self._words: dict[tuple[str, ...], str] = {}
        for word in sorted(lexicon, key=lambda w: -counts[w]):
            for way in lexicon[word]:
                self._words.setdefault(way, word)

    def __len__(self) -> int:
        return len(self.symbols)

    def unknown(self, text: str) -> list[str]:
        """The words of `text` that the lexicon does not have, sorted."""
        return sorted({w for w in text.split() if w not in self._labels})

    def encode(self, text: str) -> list[int]:
        """
        Raises:
            DataError: a word is not in the lexicon.
        """
        if strange := self.unknown(text):
            raise DataError(f"text {text!r} has words outside the lexicon: {strange}")
        labels = [label for word in text.split() for label in (0, *self._labels[word])]
        return labels[1:]

    def decode(self, labels: Iterable[int]) -> str:
        stretches: list[list[str]] = [[]]
        for label in labels:
            if label == 0:
                stretches.append([])
            else:
                stretches[-1].append(self.symbols[label])
        return " ".join(self._words.get(tuple(s)) or f"/{'.'.join(s)}/" for s in stretches if s)


def phone_tokenizer(train_texts: Iterable[str], lexicon: str, lower_case: bool) -> PhoneTokenizer:
    """The phones of a lexicon file; see `read_lexicon`.

    Raises:
        DataError: the file cannot be used, or lacks words of the training transcripts.
    """
    path = Path(lexicon).expanduser()
    ways = read_lexicon(path, lower_case)
    texts = [text.split() for text in train_texts]
    missing = Counter(w for words in texts for w in set(words) if w not in ways)
    if missing:
        first = sorted(missing.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"'{w}' ({n} utterance{'s' * (n > 1)})" for w, n in first[:5])
        more = f" and {len(first) - 5} more" if len(first) > 5 else ""
        raise DataError(
            f"{path}: no pronunciation for {len(first)} word{'s' * (len(first) > 1)} of the training transcripts: "
            f"{shown}{more}; add them to the lexicon"
        )
    return PhoneTokenizer(ways, Counter(w for words in texts for w in words))


def read_lexicon(path: Path, lower_case: bool) -> Lexicon:
    """A line a pronunciation: the word, spaces or a tab, its phones; the layout of CMUdict and of Kaldi's lexicon.txt.

    Further pronunciations repeat the word, as it is or as `word(2)`. Empty lines, lines that begin with `;;;` and what
    follows a lone `#` are skipped. `lower_case` is done to the words, not to the phones.

    Raises:
        DataError: naming the file and line.
    """
    ways: Lexicon = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"{path}: the lexicon cannot be read ({why}); set tokenizer.lexicon to its path") from None
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or line.startswith(";;;"):
            continue
        word, *phones = fields[: fields.index("#")] if "#" in fields[1:] else fields
        if not phones or BOUNDARY in phones:
            what = f"'{BOUNDARY}' is the label between words" if phones else "no phones"
            raise DataError(f"{path}:{number}: {what} ({line.strip()[:60]!r}); a line is a word and its phones")
        word = re.sub(r"(?<=.)\([0-9]+\)$", "", word)
        ways.setdefault(word.lower() if lower_case else word, []).append(tuple(phones))
    if not ways:
        raise DataError(f"{path}: the lexicon holds no word; a line is a word and its phones")
    return ways
