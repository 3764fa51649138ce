"""One label a word: for small vocabularies, and for transcripts that are phones already."""

from collections import Counter
from collections.abc import Iterable

from asr_lab.errors import ConfigError, DataError

UNKNOWN = "<unk>"


class WordTokenizer:
    """One label for each of `words`; with `has_unknown`, label 0 stands for every other word and decodes to `<unk>`,
    which is an error in scoring."""

    def __init__(self, words: list[str], has_unknown: bool):
        self.has_unknown = has_unknown
        self.symbols = [UNKNOWN, *words] if has_unknown else list(words)
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    def unknown(self, text: str) -> list[str]:
        """The words of `text` that have no label, sorted; a literal `<unk>`, which could never be wrong, is one."""
        strange = {w for w in text.split() if w not in self._ids}
        return sorted({UNKNOWN} & set(text.split()) if self.has_unknown else strange)

    def encode(self, text: str) -> list[int]:
        """
        Raises:
            DataError: a word has no label.
        """
        if strange := self.unknown(text):
            raise DataError(f"text {text!r} has words outside the tokenizer: {strange}")
        return [self._ids.get(w, 0) for w in text.split()]

    def decode(self, labels: Iterable[int]) -> str:
        return " ".join(self.symbols[i] for i in labels)


def word_tokenizer(train_texts: Iterable[str], min_count: int, unknown: str) -> WordTokenizer:
    """The words that the training transcripts hold at least `min_count` times, sorted.

    Args:
        unknown: `label`: other words share one label, and count as errors when scored; `refuse`: an utterance with
            such a word is refused.

    Raises:
        ConfigError: a value is wrong, or no word is left.
    """
    if unknown not in ("label", "refuse"):
        raise ConfigError(f"tokenizer.unknown={unknown}; choose from: label, refuse")
    if min_count < 1 or (min_count > 1 and unknown == "refuse"):
        raise ConfigError(
            f"tokenizer.min_count={min_count} with unknown={unknown}: the count is 1 or more, and 1 with unknown=refuse"
        )
    counts = Counter(w for text in train_texts for w in text.split())
    words = sorted(w for w, n in counts.items() if n >= min_count and (unknown == "refuse" or w != UNKNOWN))
    if not words:
        most = max(counts.values(), default=0)
        raise ConfigError(f"tokenizer.min_count={min_count}: the most frequent training word is there {most} times")
    return WordTokenizer(words, has_unknown=unknown == "label")
