"""N-gram language models queried by KenLM (Heafield 2011): its binary files, or ARPA files, of any size."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from asr_lab.errors import ConfigError, DataError
from asr_lab.lm.arpa import read_vocabulary
from asr_lab.lm.automaton import Automaton
from asr_lab.lm.backoff import Floats, Ints
from asr_lab.lm.kneser_ney import BEGIN, END, UNKNOWN
from asr_lab.lm.units import source

_LN10 = math.log(10)
_MAGIC = b"mmap lm http://kheafield.com/code"


def kenlm(
    tokenizer: Any, file: str, unit: str, unknown: str, unk_log_prob: float, lookahead: bool, cache_mb: float
) -> Automaton:
    """A model from a file, over labels or words; see `asr_lab.lm.units.source` for the values.

    Raises:
        ConfigError: the package kenlm is not installed.
        DataError: the file is not what it should be.
        ValueError: a value is wrong, or model and tokenizer do not fit.
    """
    return Automaton(source(Kenlm(Path(file)), tokenizer, unit, unknown, unk_log_prob, lookahead), cache_mb)


class Kenlm:
    """`Model` of asr_lab.lm.units. KenLM's states are numbered as they are met, so their list grows to at most the
    number of contexts that the model has."""

    n_states: int | None = None

    def __init__(self, path: Path):
        try:
            import kenlm  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigError(
                "lm=kenlm needs the package kenlm; install the extra: pip install 'asr-lab[lm]'"
            ) from None
        path = path.expanduser()
        # Read before KenLM does, whose own words on a broken file name its source lines.
        self.words = vocabulary(path)
        config = kenlm.Config()
        config.show_progress = False
        config.arpa_complain = kenlm.ARPALoadComplain.NONE
        try:
            self._model = kenlm.Model(str(path), config)
        except (OSError, RuntimeError) as error:
            why = " ".join(str(error).split()).rpartition(" threw ")[2].partition(" ")[2].removesuffix(")")
            raise DataError(f"{path}: KenLM cannot load it ({why})") from None
        self._state = kenlm.State
        self._states: list[Any] = []
        self._ids: dict[Any, int] = {}
        places = {word: i for i, word in enumerate(self.words)}
        if END not in places:
            raise DataError(f"{path}: '{END}' is not among its words; a model of sentences has it")
        self.begin, self.end, self.unknown = places.get(BEGIN), places[END], places.get(UNKNOWN)
        start, empty = self._state(), self._state()
        self._model.BeginSentenceWrite(start)
        self._model.NullContextWrite(empty)
        self.start, self.empty = self._number(start), self._number(empty)

    def _number(self, state: Any) -> int:
        number = self._ids.setdefault(state, len(self._states))
        if number == len(self._states):
            self._states.append(state)
        return number

    def step(self, states: Ints, words: Ints) -> tuple[Floats, Ints]:
        """(M,), (M,) -> log p(word | state) in nats, and the states after the words"""
        log_probs, after = np.zeros(len(states)), np.zeros(len(states), np.int64)
        for i, (state, word) in enumerate(zip(states.tolist(), words.tolist(), strict=True)):
            to = self._state()
            log_probs[i] = self._model.BaseScore(self._states[state], self.words[word], to) * _LN10
            after[i] = self._number(to)
        return log_probs, after

    def rows(self, states: Ints) -> tuple[Floats, Ints]:
        """(K,) -> the same for every word: (K, n_words) each"""
        n = len(self.words)
        log_probs, after = self.step(np.repeat(states, n), np.tile(np.arange(n), len(states)))
        return log_probs.reshape(-1, n), after.reshape(-1, n)


def vocabulary(path: Path) -> list[str]:
    """The words of an ARPA file, or of a binary file, which holds them at its end.

    Raises:
        DataError: the file cannot be read, or holds no words.
    """
    try:
        with open(path, "rb") as f:
            if f.read(len(_MAGIC)) != _MAGIC:
                return read_vocabulary(path)
            content = f.read()
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: the language model cannot be read ({why})") from None
    # Each word is followed by a zero byte; <unk> is the first of them.
    words = content[content.rfind(b"\0" + UNKNOWN.encode() + b"\0") + 1 :].split(b"\0")[:-1]
    if words[:1] != [UNKNOWN.encode()]:
        raise DataError(f"{path}: the file holds no words; build it with build_binary and without -i")
    return [word.decode() for word in words]
