"""Tokenizers: text to label ids and back. Special ids (blank, start, end) belong to the decoder, not here."""

from collections.abc import Iterable
from typing import Protocol

from asr_lab.errors import ConfigError, DataError


class Tokenizer(Protocol):
    """What training, decoding and checks need of every tokenizer; `decode(encode(text)) == text` for known text."""

    symbols: list[str]  # one a label id, for people to read

    def __len__(self) -> int:
        """V, the number of labels."""
        ...

    def unknown(self, text: str) -> list[str]:
        """The pieces of `text` (characters or words) that have no label, sorted; empty when it can be encoded."""
        ...

    def encode(self, text: str) -> list[int]:
        """
        Raises:
            DataError: a piece has no label.
        """
        ...

    def decode(self, labels: Iterable[int]) -> str: ...


class CharTokenizer:
    """One label a character, in the order of `alphabet`."""

    def __init__(self, alphabet: str):
        if not alphabet:
            raise ConfigError("tokenizer.alphabet is empty; list the characters, or use tokenizer=char_train")
        repeated = sorted({c for c in alphabet if alphabet.count(c) > 1})
        if repeated:
            raise ConfigError(f"tokenizer.alphabet names {', '.join(map(repr, repeated))} more than once")
        self.symbols = list(alphabet)
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    def unknown(self, text: str) -> list[str]:
        """The characters of `text` that have no label, sorted."""
        return sorted(set(text) - self._ids.keys())

    def encode(self, text: str) -> list[int]:
        """
        Raises:
            DataError: a character has no label.
        """
        try:
            return list(map(self._ids.__getitem__, text))
        except KeyError:
            raise DataError(f"text {text!r} has characters outside the tokenizer: {self.unknown(text)}") from None

    def decode(self, labels: Iterable[int]) -> str:
        return "".join(self.symbols[i] for i in labels)


def char_tokenizer(train_texts: Iterable[str], alphabet: str) -> CharTokenizer:
    """A fixed alphabet, whatever the training transcripts hold."""
    return CharTokenizer(alphabet)


def char_tokenizer_of_train(train_texts: Iterable[str]) -> CharTokenizer:
    """The characters of the training transcripts, sorted: any script, no list to write."""
    return CharTokenizer("".join(sorted({c for text in train_texts for c in text})))
